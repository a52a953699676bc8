//! Requests and replies: an answer finds the one who asked, and nobody waits for one that cannot come.

use std::sync::Arc;

use bytes::Bytes;
use interline::MessageId;
use interline::handling::PublishErrorKind;
use interline::message::headers::name;
use interline::message::{Incoming, Outgoing, ReplyAddress};
use interline::messaging::{BrokerErrorKind, ReplyEvent, Requests, Settled};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::world::{LIMIT, Outcome, Process, QUIET, World, cases, message, subscription, text};

cases![
    a_reply_finds_the_one_who_asked,
    a_reply_to_one_who_is_gone_is_no_error,
    a_request_that_nobody_listens_to_is_reported,
    a_request_that_was_retried_still_knows_where_to_answer,
    many_requests_at_once_are_all_answered,
    the_loss_of_the_connection_ends_the_wait_and_the_next_request_is_answered,
];

/// Somebody who asks.
struct Asker {
    requests: Arc<dyn Requests>,
    events: mpsc::Receiver<ReplyEvent>,
}

impl Asker {
    /// `None` where the broker carries no replies, and says so.
    async fn of(process: &Process) -> Option<Self> {
        let (sender, events) = mpsc::channel(64);
        let requests = timeout(LIMIT, process.broker.requests(sender)).await;
        let requests = requests.expect("in time");
        if !process.broker.capabilities().replies {
            let error = requests.err().expect("there are no replies");
            assert_eq!(error.kind(), BrokerErrorKind::Unsupported);
            return None;
        }
        let requests = requests.expect("it listens");
        Some(Self { requests, events })
    }

    async fn ask(&self, topic: &str, body: &str) -> u64 {
        let sent = timeout(LIMIT, self.requests.send(message(topic, body))).await;
        sent.expect("in time").expect("it is sent")
    }

    async fn event(&mut self) -> ReplyEvent {
        let event = timeout(LIMIT, self.events.recv()).await;
        event.expect("an event in time").expect("it listens")
    }

    /// The next reply: the request it answers, and its body.
    async fn answer(&mut self) -> (String, String) {
        loop {
            if let ReplyEvent::Reply(reply) = self.event().await {
                let request = reply.headers.text(name::IN_REPLY_TO).expect("it says");
                return (request.into_owned(), text(&reply));
            }
        }
    }

    async fn expect_quiet(&mut self) {
        let came = timeout(QUIET, self.events.recv()).await;
        assert!(!matches!(came, Ok(Some(_))), "{came:?}");
    }
}

fn address(request: &Incoming) -> ReplyAddress {
    let address = request
        .headers
        .text(name::REPLY_TO)
        .expect("it says where to");
    ReplyAddress::parse(&address).expect("a good address")
}

/// The reply to a request: its body with a mark.
fn reply_to(request: &Incoming) -> Outgoing {
    let id = MessageId::parse(&format!("reply/{}", request.id)).expect("a valid id");
    let body = Bytes::from(format!("re {}", text(request)));
    let mut reply = Outgoing::new("answers", id, body);
    reply.headers.set(name::IN_REPLY_TO, request.id.to_string());
    reply.headers.set("x-tenant", "acme");
    reply
}

async fn answer(process: &Process, request: &Incoming) {
    let replied = process.broker.reply(address(request), reply_to(request));
    let replied = timeout(LIMIT, replied).await;
    replied.expect("in time").expect("it is sent");
}

async fn a_reply_finds_the_one_who_asked(world: Arc<World>) -> Outcome {
    let (one, two) = (world.process("1").await, world.process("2").await);
    let responder = world.process("3").await;
    let mut reader = responder.read(&subscription("ask", "g")).await;
    let Some(mut first) = Asker::of(&one).await else {
        return Ok(());
    };
    let mut second = Asker::of(&two).await.expect("as the first");
    first.ask("ask", "a").await;
    second.ask("ask", "b").await;
    for _ in 0..2 {
        let (request, settlement) = reader.next().await;
        answer(&responder, &request).await;
        assert_eq!(settlement.done().await?, Settled::Yes);
    }
    assert_eq!(first.answer().await, ("ask/a".into(), "re a".into()));
    let ReplyEvent::Reply(reply) = second.event().await else {
        panic!("nothing was lost");
    };
    assert_eq!(text(&reply), "re b");
    assert_eq!(reply.headers.text("x-tenant").as_deref(), Some("acme"));
    assert_eq!(reply.id.as_str(), "reply/ask/b");
    first.expect_quiet().await;
    second.expect_quiet().await;
    reader.expect_quiet().await;
    Ok(())
}

async fn a_request_that_nobody_listens_to_is_reported(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let Some(asker) = Asker::of(&process).await else {
        return Ok(());
    };
    let sent = timeout(LIMIT, asker.requests.send(message("nobody", "1"))).await;
    let sent = sent.expect("in time");
    if process.broker.capabilities().reports_unroutable {
        let error = sent.expect_err("nobody listens");
        assert_eq!(error.kind(), PublishErrorKind::Unroutable);
    } else if let Err(error) = sent {
        // It cannot always know.
        assert_eq!(error.kind(), PublishErrorKind::Unroutable);
    }
    Ok(())
}

async fn a_request_that_was_retried_still_knows_where_to_answer(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("ask", "g")).await;
    let Some(mut asker) = Asker::of(&process).await else {
        return Ok(());
    };
    asker.ask("ask", "a").await;
    let (request, settlement) = reader.next().await;
    let wait = std::time::Duration::from_secs(1);
    let headers = request.headers.clone();
    settlement.retry(request, wait, headers).await?;
    let (request, settlement) = reader.next().await;
    answer(&process, &request).await;
    settlement.done().await?;
    assert_eq!(asker.answer().await, ("ask/a".into(), "re a".into()));
    Ok(())
}

async fn many_requests_at_once_are_all_answered(world: Arc<World>) -> Outcome {
    const COUNT: usize = 200;
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("ask", "g")).await;
    let Some(mut asker) = Asker::of(&process).await else {
        return Ok(());
    };
    let requests = Arc::clone(&asker.requests);
    let asking = futures_util::future::join_all((0..COUNT).map(|index| {
        let request = message("ask", &format!("{index:03}"));
        async { requests.send(request).await.expect("it is sent") }
    }));
    let answering = async {
        for _ in 0..COUNT {
            let (request, settlement) = reader.next().await;
            answer(&process, &request).await;
            settlement.done().await.expect("settled");
        }
    };
    let listening = async {
        let mut answered = Vec::new();
        while answered.len() < COUNT {
            answered.push(asker.answer().await.1);
        }
        answered.sort();
        answered.dedup();
        answered.len()
    };
    let (_, (), answered) = futures_util::future::join3(asking, answering, listening).await;
    assert_eq!(answered, COUNT);
    Ok(())
}

async fn a_reply_to_one_who_is_gone_is_no_error(world: Arc<World>) -> Outcome {
    let (one, responder) = (world.process("1").await, world.process("2").await);
    let mut reader = responder.read(&subscription("ask", "g")).await;
    let Some(asker) = Asker::of(&one).await else {
        return Ok(());
    };
    asker.ask("ask", "a").await;
    let (request, settlement) = reader.next().await;
    asker.requests.close().await;
    one.broker.disconnect(Instant::now() + LIMIT).await;
    answer(&responder, &request).await;
    assert_eq!(settlement.done().await?, Settled::Yes);
    Ok(())
}

async fn the_loss_of_the_connection_ends_the_wait_and_the_next_request_is_answered(
    world: Arc<World>,
) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("ask", "g")).await;
    let Some(mut asker) = Asker::of(&process).await else {
        return Ok(());
    };
    let epoch = asker.ask("ask", "a").await;
    let _unsettled = reader.next().await;
    world.disconnect(&process).await;
    // Where replies survive a lost connection there is no such event: then the answer itself comes.
    let (request, settlement) = reader.next().await;
    assert_eq!(text(&request), "a");
    answer(&process, &request).await;
    settlement.done().await?;
    match asker.event().await {
        ReplyEvent::Lost { epoch: lost } => assert!(lost >= epoch, "{lost} < {epoch}"),
        ReplyEvent::Reply(reply) => assert_eq!(text(&reply), "re a"),
        other => panic!("{other:?}"),
    }
    let next = asker.ask("ask", "b").await;
    assert!(next >= epoch);
    let (request, settlement) = reader.next().await;
    answer(&process, &request).await;
    settlement.done().await?;
    assert_eq!(asker.answer().await, ("ask/b".into(), "re b".into()));
    Ok(())
}
