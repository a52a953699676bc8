//! Where an entry was read, without an allocation for what is the same each time.

use std::sync::Arc;

use crate::message::Place;

use super::names::Names;
use super::out::Source;

pub(super) struct Places {
    stream: Arc<str>,
    retries: Arc<str>,
    group: Arc<str>,
}

impl Places {
    pub(super) fn of(names: &Names) -> Self {
        Self {
            stream: names.stream.as_str().into(),
            retries: names.retry.as_str().into(),
            group: names.group.as_str().into(),
        }
    }

    pub(super) fn at(&self, source: Source, id: &Arc<str>) -> Place {
        Place::Redis {
            stream: match source {
                Source::Stream => Arc::clone(&self.stream),
                Source::Retries => Arc::clone(&self.retries),
            },
            group: Arc::clone(&self.group),
            id: Arc::clone(id),
        }
    }
}
