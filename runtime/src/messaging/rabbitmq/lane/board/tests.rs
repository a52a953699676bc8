use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use lapin::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// The two ends of a publish that the client crate's own thread has in hand.
struct Sent {
    written: Option<oneshot::Sender<()>>,
    resolve: oneshot::Sender<Resolved>,
}

impl Sent {
    fn write(&mut self) {
        if let Some(written) = self.written.take() {
            written.send(()).expect("the publish is open");
        }
    }

    fn resolve(mut self, resolved: Resolved) {
        self.write();
        self.resolve.send(resolved).expect("the publish is open");
    }
}

/// Begins a publish, which is first written and then resolved.
async fn begin(board: &Arc<Board>, identity: Identity) -> (Sent, Publishing) {
    let (write, written) = oneshot::channel();
    let (resolve, resolved) = oneshot::channel();
    board.places.acquire().await.unwrap().forget();
    let publishing = board.begin(identity, async {
        written.await.unwrap();
        resolved.await.unwrap()
    });
    let sent = Sent {
        written: Some(write),
        resolve,
    };
    (sent, publishing)
}

async fn verdict(publishing: Publishing) -> Verdict {
    timeout(LIMIT, publishing).await.expect("an answer")
}

#[tokio::test]
async fn a_returned_message_finds_its_publish_whoever_was_given_it_and_looks_first() {
    let board = Board::new(8);
    let (first, one) = begin(&board, 1).await;
    let (second, two) = begin(&board, 2).await;
    let (third, three) = begin(&board, 3).await;
    // The server returned the first; the client crate resolves all three at once, in its own order.
    third.resolve(Resolved::Acked(Some(1)));
    first.resolve(Resolved::Acked(None));
    second.resolve(Resolved::Acked(None));
    assert!(matches!(verdict(one).await, Verdict::Unroutable));
    assert!(matches!(verdict(two).await, Verdict::Confirmed));
    assert!(matches!(verdict(three).await, Verdict::Confirmed));
    assert_eq!(board.places.available_permits(), 8);
}

#[tokio::test]
async fn who_has_stopped_waiting_holds_nobody_up() {
    let board = Board::new(8);
    let (first, one) = begin(&board, 1).await;
    let (second, two) = begin(&board, 2).await;
    drop(two);
    // Whether the first was returned too is open until the second, which nobody waits for, is resolved.
    first.resolve(Resolved::Acked(Some(2)));
    let waiting = tokio::spawn(verdict(one));
    while board.places.available_permits() < 7 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    second.resolve(Resolved::Acked(None));
    assert!(matches!(waiting.await.unwrap(), Verdict::Confirmed));
    assert_eq!(board.places.available_permits(), 8);
}

#[tokio::test]
async fn who_is_busy_with_something_else_holds_nobody_up() {
    let board = Board::new(2);
    let (first, mut one) = begin(&board, 1).await;
    let (second, two) = begin(&board, 2).await;
    // It has been looked at, and is not again before the others have gone on.
    assert!(futures_util::poll!(&mut one).is_pending());
    second.resolve(Resolved::Acked(Some(1)));
    let waiting = tokio::spawn(verdict(two));
    while board.places.available_permits() < 1 {
        tokio::task::yield_now().await;
    }
    first.resolve(Resolved::Acked(None));
    let verdict_of_two = timeout(LIMIT, waiting).await.expect("an answer").unwrap();
    assert!(matches!(verdict_of_two, Verdict::Confirmed));
    assert!(matches!(verdict(one).await, Verdict::Unroutable));
    // Nor where every place is taken by those who do not look.
    let (third, mut three) = begin(&board, 3).await;
    let (_fourth, four) = begin(&board, 4).await;
    assert!(futures_util::poll!(&mut three).is_pending());
    third.resolve(Resolved::Acked(None));
    let place = timeout(LIMIT, board.places.acquire()).await;
    assert!(place.is_ok(), "the place of the third is free");
    drop(four);
}

#[tokio::test]
async fn a_channel_that_ends_leaves_nobody_without_an_answer() {
    let board = Board::new(8);
    let error = || Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
    let (first, one) = begin(&board, 1).await;
    let (second, two) = begin(&board, 2).await;
    let (third, three) = begin(&board, 3).await;
    first.resolve(Resolved::Acked(Some(7)));
    second.resolve(Resolved::Nacked(None));
    third.resolve(Resolved::Lost(error()));
    assert!(matches!(verdict(three).await, Verdict::Lost(_)));
    assert!(matches!(verdict(two).await, Verdict::Nacked));
    assert!(matches!(verdict(one).await, Verdict::Lost(_)));
    let at_once = board.begin(4, async move { Resolved::Lost(error()) });
    assert!(matches!(verdict(at_once).await, Verdict::Lost(_)));
}

/// The server returns some messages and acknowledges in lots, the client crate gives returned messages to
/// whatever it resolves next, publishers wait in tasks of their own, and some give up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returned_messages_are_found_among_many_in_any_order() {
    for _ in 0..200 {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let board = Board::new(64);
        let count = random.u64(1..60);
        let mut resolvers = VecDeque::new();
        let mut waiting = Vec::new();
        for identity in 0..count {
            let (sent, publishing) = begin(&board, identity).await;
            let unroutable = random.u8(..4) == 0;
            resolvers.push_back((identity, unroutable, sent));
            if random.u8(..8) == 0 {
                drop(publishing);
            } else {
                waiting.push((identity, unroutable, tokio::spawn(verdict(publishing))));
            }
        }
        let mut returned = VecDeque::new();
        while !resolvers.is_empty() {
            let lot = random.usize(1..=resolvers.len());
            let mut lot: Vec<_> = resolvers.drain(..lot).collect();
            for (_, _, sent) in &mut lot {
                if random.bool() {
                    sent.write();
                }
            }
            let unroutable = lot.iter().filter(|(_, unroutable, _)| *unroutable);
            returned.extend(unroutable.map(|(identity, ..)| *identity));
            random.shuffle(&mut lot);
            for (_, _, sent) in lot {
                sent.resolve(Resolved::Acked(returned.pop_front()));
            }
            if random.bool() {
                tokio::task::yield_now().await;
            }
        }
        for (identity, unroutable, verdict) in waiting {
            let verdict = verdict.await.unwrap();
            let expected = if unroutable {
                matches!(verdict, Verdict::Unroutable)
            } else {
                matches!(verdict, Verdict::Confirmed)
            };
            assert!(
                expected,
                "seed {seed}: publish {identity} of {count}, unroutable: {unroutable}, got {verdict:?}"
            );
        }
        let all = async {
            while board.places.available_permits() < 64 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, all)
            .await
            .expect("those that nobody waits for end too");
    }
}
