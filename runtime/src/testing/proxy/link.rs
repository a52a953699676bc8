//! One connection through the proxy.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Direction, Faults, Shared};

/// The largest piece that is forwarded at once, in bytes.
const PIECE: usize = 16 * 1024;
/// How many pieces may be under way in one direction; then the sender is held back.
const UNDER_WAY: usize = 64;

pub(super) enum Either<L, R> {
    Left(L),
    Right(R),
}

/// The output of whichever future ends first; the left one if both have.
pub(super) async fn first_of<L: Future, R: Future>(
    left: L,
    right: R,
) -> Either<L::Output, R::Output> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|context| {
        if let Poll::Ready(output) = left.as_mut().poll(context) {
            return Poll::Ready(Either::Left(output));
        }
        right.as_mut().poll(context).map(Either::Right)
    })
    .await
}

/// Runs both futures to their ends, or until one fails.
async fn both(
    left: impl Future<Output = io::Result<()>>,
    right: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    let (mut left_done, mut right_done) = (false, false);
    poll_fn(|context| {
        if !left_done && let Poll::Ready(result) = left.as_mut().poll(context) {
            result?;
            left_done = true;
        }
        if !right_done && let Poll::Ready(result) = right.as_mut().poll(context) {
            result?;
            right_done = true;
        }
        if left_done && right_done {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

pub(super) async fn run(
    mut client: TcpStream,
    target: SocketAddr,
    seed: u64,
    number: u64,
    shared: &Shared,
    on_reset: oneshot::Receiver<()>,
) {
    let mut on_reset = pin!(on_reset);
    let connected = first_of(on_reset.as_mut(), async {
        let mut faults = shared.faults.subscribe();
        let _ = faults.wait_for(|faults| !faults.black_hole).await;
        TcpStream::connect(target).await
    })
    .await;
    let Either::Right(Ok(mut server)) = connected else {
        // The server refuses, or a reset came first: to the client both look the same.
        let _ = client.set_zero_linger();
        return;
    };
    // A proxy that waits for more bytes would add a delay nobody asked for.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);

    let chance = |direction| chance(seed, number, direction);
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = forward(
            from_client,
            to_server,
            Direction::ToServer,
            shared,
            chance(Direction::ToServer),
        );
        let back = forward(
            from_server,
            to_client,
            Direction::ToClient,
            shared,
            chance(Direction::ToClient),
        );
        first_of(on_reset, both(there, back)).await
    };
    if let Either::Right(Ok(())) = ended {
        return;
    }
    // One side was reset, or both are to be: what the sockets still hold is dropped with them.
    let _ = client.set_zero_linger();
    let _ = server.set_zero_linger();
}

/// The delays of one direction of the connection with this number.
pub(super) fn chance(seed: u64, number: u64, direction: Direction) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed ^ (number * 2 + direction as u64).rotate_left(32))
}

async fn forward(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
    shared: &Shared,
    chance: fastrand::Rng,
) -> io::Result<()> {
    let (pieces, arrived) = mpsc::channel(UNDER_WAY);
    both(
        take(from, pieces, shared, chance),
        give(arrived, to, direction, shared),
    )
    .await
}

/// Reads pieces and says when each is due; an empty piece is the end.
async fn take(
    mut from: ReadHalf<'_>,
    pieces: mpsc::Sender<(Instant, Bytes)>,
    shared: &Shared,
    mut chance: fastrand::Rng,
) -> io::Result<()> {
    let mut due = Instant::now();
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = from.read_buf(&mut piece).await?;
        let latency = shared.faults.borrow().latency.clone();
        let micros = |duration: &std::time::Duration| {
            u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
        };
        let delay = chance.u64(micros(latency.start())..=micros(latency.end()));
        // Never before the piece in front of it.
        due = due.max(Instant::now() + std::time::Duration::from_micros(delay));
        let sent = pieces.send((due, piece.freeze())).await;
        if read == 0 || sent.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    mut pieces: mpsc::Receiver<(Instant, Bytes)>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    let mut faults = shared.faults.subscribe();
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        let passes = |faults: &Faults| !faults.holds(direction);
        if faults.wait_for(passes).await.is_err() {
            break;
        }
        if piece.is_empty() {
            break;
        }
        let (admitted, cut) = shared.admit(piece.len());
        to.write_all(&piece[..admitted]).await?;
        shared.bytes[direction as usize].fetch_add(admitted as u64, Ordering::Relaxed);
        if cut {
            shared.reset_links();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
    to.shutdown().await
}
