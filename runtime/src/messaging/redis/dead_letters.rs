//! The dead letters of a subscription: read, moved back, removed.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::Value;
use tokio::task::unconstrained;

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{Headers, Incoming, Origin, Place};
use crate::messaging::{BrokerError, DeadLetterStore, Subscription};

use super::answers;
use super::core::Core;
use super::errors::broker_error;
use super::fields;
use super::live::Live;
use super::names::Names;
use super::scripts;
use super::settler::copied;

/// How many are read at once.
const PAGE: usize = 64;

pub(super) struct DeadLetters(pub(super) Arc<Core>);

/// A look at the dead letters, each once: what is added meanwhile is not reached.
struct Look<'a> {
    core: &'a Core,
    live: Arc<Live>,
    names: Names,
    subscription: &'a Subscription,
    /// After which entry to go on, and the last that was there when the look began.
    after: Option<Arc<str>>,
    last: Option<Arc<str>>,
    page: std::vec::IntoIter<(Arc<str>, fields::Fields)>,
}

impl<'a> Look<'a> {
    async fn begin(core: &'a Core, subscription: &'a Subscription) -> Result<Self, BrokerError> {
        let live = core.connected()?;
        let names = Names::of(core.context.prefix.as_deref(), subscription);
        let mut look = Self {
            core,
            live,
            names,
            subscription,
            after: None,
            last: None,
            page: Vec::new().into_iter(),
        };
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(&look.names.dead_letters).arg("+").arg("-");
        newest.arg("COUNT").arg(1);
        let newest = answers::range(look.raw(&newest).await?);
        look.last = newest.into_iter().next().map(|(id, _)| id);
        Ok(look)
    }

    fn what(&self) -> String {
        format!("dead letters `{}`", self.names.dead_letters)
    }

    async fn raw(&self, command: &redis::Cmd) -> Result<Value, BrokerError> {
        let answer = self.live.settle.raw(&self.what(), command).await;
        answer.map_err(|failure| broker_error(&self.core.context.name, &failure))
    }

    async fn next(&mut self, page: usize) -> Result<Option<(Arc<str>, Incoming)>, BrokerError> {
        let Some(last) = &self.last else {
            return Ok(None);
        };
        if self.page.as_slice().is_empty() {
            let mut command = redis::cmd("XRANGE");
            command.arg(&self.names.dead_letters);
            match &self.after {
                Some(after) => command.arg(format!("({after}")),
                None => command.arg("-"),
            };
            command.arg(&**last).arg("COUNT").arg(page.clamp(1, PAGE));
            self.page = answers::range(self.raw(&command).await?).into_iter();
        }
        let Some((id, entry)) = self.page.next() else {
            return Ok(None);
        };
        self.after = Some(Arc::clone(&id));
        let read = fields::read(&self.core.settings.payload_field, entry);
        let place = Place::Redis {
            stream: self.names.dead_letters.as_str().into(),
            group: self.names.group.as_str().into(),
            id: Arc::clone(&id),
        };
        let origin = Origin::new(Arc::clone(&self.core.context.name), place);
        let topic = match read.headers.text(name::TOPIC) {
            Some(topic) => (*topic).into(),
            None => self.subscription.topic.as_str().into(),
        };
        let letter = Incoming::new(topic, read.body, read.headers, origin);
        Ok(Some((id, letter)))
    }

    /// At most `most` letters for which `choose` gives new headers, and no more than a page.
    async fn lot(
        &mut self,
        most: usize,
        choose: &(dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> Result<Vec<(Arc<str>, Incoming, Headers)>, BrokerError> {
        let mut lot = Vec::new();
        while lot.len() < most.min(PAGE)
            && let Some((id, letter)) = self.next(PAGE).await?
        {
            if let Some(headers) = choose(&letter) {
                lot.push((id, letter, headers));
            }
        }
        Ok(lot)
    }

    /// Moves one to the retries; `false` if somebody else did.
    async fn send_back(
        &self,
        id: &str,
        letter: &Incoming,
        headers: Headers,
    ) -> Result<bool, BrokerError> {
        let mut script = scripts::REDRIVE.key(&self.names.dead_letters);
        script.key(&self.names.retry).arg(id);
        let payload_field = &self.core.settings.payload_field;
        fields::write(payload_field, &letter.body, &headers, |part| {
            script.arg(part);
        });
        let moved = self.live.settle.run::<i64>(&self.what(), &script).await;
        let moved = moved.map_err(|failure| broker_error(&self.core.context.name, &failure))?;
        Ok(moved == 1)
    }

    async fn remove(&self, id: &str) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("XDEL");
        command.arg(&self.names.dead_letters).arg(id);
        Ok(matches!(self.raw(&command).await?, Value::Int(1)))
    }
}

impl DeadLetterStore for DeadLetters {
    fn list<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Incoming>, BrokerError>> {
        Box::pin(async move {
            let mut look = Look::begin(&self.0, subscription).await?;
            let mut found = Vec::new();
            while found.len() < limit {
                match look.next(limit - found.len()).await? {
                    Some((_, letter)) => found.push(letter),
                    None => break,
                }
            }
            Ok(found)
        })
    }

    fn redrive<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        Box::pin(async move {
            let mut look = Look::begin(&self.0, subscription).await?;
            let mut moved = 0;
            while moved < limit {
                let lot = look.lot(limit - moved, choose).await?;
                if lot.is_empty() {
                    break;
                }
                let moving = lot.iter().map(|(id, letter, headers)| {
                    let headers = copied(headers.clone(), letter);
                    look.send_back(id, letter, headers)
                });
                // One step on the server each, in their order: nothing else holds one of them up.
                for outcome in unconstrained(join_all(moving)).await {
                    moved += usize::from(outcome?);
                }
            }
            Ok(moved)
        })
    }

    fn purge<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        Box::pin(async move {
            let mut look = Look::begin(&self.0, subscription).await?;
            let mut removed = 0;
            while removed < limit {
                match look.next(PAGE).await? {
                    Some((id, letter)) if choose(&letter) => {
                        removed += usize::from(look.remove(&id).await?);
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            Ok(removed)
        })
    }
}
