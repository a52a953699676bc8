//! Acknowledgements, many in one command: what settles while one is under way goes with the next.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;

use crate::messaging::Settled;
use crate::redis::Failure;

use super::epoch::Session;
use super::out::Source;
use super::scripts;

/// Most acknowledgements in one command.
const TOGETHER_MAX: usize = 64;

/// One acknowledgement.
pub(super) struct Ack {
    pub(super) source: Source,
    pub(super) id: Arc<str>,
    pub(super) done: oneshot::Sender<Settled>,
}

/// Sends what comes, until nobody can send any more.
pub(super) async fn run(session: Session, mut acks: mpsc::Receiver<Ack>) {
    let mut batch = Vec::with_capacity(TOGETHER_MAX);
    while acks.recv_many(&mut batch, TOGETHER_MAX).await > 0 {
        // Handlers that end now should not have to wait for the next command.
        yield_now().await;
        while batch.len() < TOGETHER_MAX
            && let Ok(ack) = acks.try_recv()
        {
            batch.push(ack);
        }
        let settled = match acknowledge(&session, &batch).await {
            Ok(settled) => settled,
            // It fails with its connection, or the server cannot do it: the message comes again.
            Err(_) => Settled::Stale,
        };
        for ack in batch.drain(..) {
            // Whoever settled may not wait for the answer.
            let _ = ack.done.send(settled);
        }
    }
}

async fn acknowledge(session: &Session, batch: &[Ack]) -> Result<Settled, Failure> {
    let names = &session.names;
    let of = |source| {
        let acks = batch.iter().filter(move |ack| ack.source == source);
        acks.map(|ack| &*ack.id).collect::<Vec<_>>()
    };
    let (stream, retries) = (of(Source::Stream), of(Source::Retries));
    let connection = &session.live.settle;
    let what = || format!("group `{}` of stream `{}`", names.group, names.stream);
    if let Some(token) = &session.token {
        let mut script = scripts::ACKNOWLEDGE.key(&names.stream);
        script.key(&names.retry).key(&names.lease);
        script.arg(&names.group).arg(&**token).arg(stream.len());
        script.arg(&stream).arg(&retries);
        let done: i64 = connection.run(&what(), &script).await?;
        return Ok(if done < 0 {
            Settled::Stale
        } else {
            Settled::Yes
        });
    }
    if !stream.is_empty() {
        let mut command = redis::cmd("XACK");
        command.arg(&names.stream).arg(&names.group).arg(&stream);
        let _: u64 = connection.query(&what(), &command).await?;
    }
    if !retries.is_empty() {
        let mut both = redis::pipe();
        both.atomic();
        both.cmd("XACK")
            .arg(&names.retry)
            .arg(&names.group)
            .arg(&retries);
        both.cmd("XDEL").arg(&names.retry).arg(&retries);
        let _: (u64, u64) = connection.pipe(&what(), &both).await?;
    }
    Ok(Settled::Yes)
}
