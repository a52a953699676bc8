//! Asking: one request, from the free place to its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use crate::handling::{Answer, BoxFuture, PublishError, RequestError, RequestErrorKind};
use crate::message::{Incoming, Outgoing, format_time, headers::name};
use crate::messaging::MessageBroker;
use crate::observability::metrics::{self, Series};

use super::{DYNAMIC_DESTINATION, Publishing, Target};

impl Publishing {
    pub(super) async fn ask(
        &self,
        outgoing: Outgoing,
        limit: Option<Duration>,
        now: SystemTime,
    ) -> Result<Answer, RequestError> {
        let started = Instant::now();
        let destination = outgoing.template.unwrap_or(DYNAMIC_DESTINATION);
        let target = self.target(&outgoing.topic, outgoing.broker.as_deref())?;
        let limit = limit.unwrap_or(target.target.limits.request_timeout);
        let answered = self.call(target, outgoing, limit, now).await;
        if self.metrics.is_some() {
            let outcome = match &answered {
                Ok(incoming) if is_fault(incoming) => RequestErrorKind::Fault.as_str(),
                Ok(_) => "answered",
                Err(error) => error.kind().as_str(),
            };
            let broker = Arc::clone(target.target.broker.name());
            let labels = vec![broker, destination.into(), outcome.into()];
            Series::of(self.metrics.as_deref(), metrics::REQUEST_DURATION, labels)
                .record(started.elapsed().as_secs_f64());
        }
        let codecs = Arc::clone(&self.codecs);
        let codec = target.target.codec.clone();
        answered.map(|incoming| Answer::new(incoming, codecs, codec))
    }

    async fn call(
        &self,
        target: &Target,
        mut outgoing: Outgoing,
        limit: Duration,
        now: SystemTime,
    ) -> Result<Incoming, RequestError> {
        let topic = outgoing.topic.to_string();
        let fail = |kind, text: &str| RequestError::new(kind, &*topic, text);
        let broker = &target.target.broker;
        if !broker.capabilities().replies {
            let text = format!(
                "broker `{}` is of kind `{}`, and these carry no replies",
                broker.name(),
                broker.kind()
            );
            return Err(fail(RequestErrorKind::Unsupported, &text));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(fail(RequestErrorKind::Closed, "the app is shutting down"));
        }
        let deadline = Instant::now() + limit;
        outgoing
            .headers
            .set(name::DEADLINE, format_time(now + limit));
        let _place = target.calls.place(&topic, deadline).await?;
        let requests = target.calls.listen(&topic, deadline).await?;
        let mut call = target.calls.begin(&outgoing.id);
        let ticket = call.ticket();
        let hand_over = |_: &Arc<dyn MessageBroker>, outgoing: Outgoing| {
            let (requests, ticket) = (Arc::clone(&requests), ticket.clone());
            Box::pin(async move {
                let epoch = requests.send(outgoing).await?;
                ticket.sent(epoch);
                Ok(())
            }) as BoxFuture<'_, Result<(), PublishError>>
        };
        let answered = async {
            // The reply can be here before the confirmation is, and then says more.
            let answer = tokio::select! {
                biased;
                answer = call.answered() => answer,
                sent = self.publish_by(outgoing, &hand_over) => {
                    sent?;
                    call.answered().await
                }
            };
            answer.map_err(|kind| match kind {
                RequestErrorKind::ChannelLost => {
                    let text = "the connection that it was to come on was lost; the request may be \
                                handled all the same";
                    fail(kind, text)
                }
                kind => fail(kind, "the app is shutting down"),
            })
        };
        match timeout_at(deadline, answered).await {
            Ok(answered) => answered,
            Err(_) => {
                let text =
                    format!("none came within {limit:?}; the request may be handled all the same");
                Err(fail(RequestErrorKind::Timeout, &text))
            }
        }
    }
}

fn is_fault(incoming: &Incoming) -> bool {
    incoming.message_type().as_deref() == Some(crate::handling::Fault::MESSAGE_TYPE)
}
