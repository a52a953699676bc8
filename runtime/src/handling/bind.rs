//! Binding: before anything runs, each handler's needs are resolved and everything that is missing
//! is collected.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The values that handlers take as [`State`](super::State), one of each type.
#[derive(Clone, Default)]
pub struct States {
    values: HashMap<TypeId, (&'static str, Arc<dyn Any + Send + Sync>)>,
    /// Why there is no value of a type that there could be.
    lacking: HashMap<TypeId, BindFault>,
}

impl States {
    /// Adds a value. Returns whether there was none of its type.
    pub fn insert<S: Send + Sync + 'static>(&mut self, value: S) -> bool {
        let entry = (
            type_name::<S>(),
            Arc::new(value) as Arc<dyn Any + Send + Sync>,
        );
        self.values.insert(TypeId::of::<S>(), entry).is_none()
    }

    /// Says why there is no value of type `S`, for whoever asks for it.
    pub fn lacks<S: Send + Sync + 'static>(&mut self, fault: BindFault) {
        self.lacking.insert(TypeId::of::<S>(), fault);
    }

    /// The value of type `S`.
    #[must_use]
    pub fn get<S: Send + Sync + 'static>(&self) -> Option<Arc<S>> {
        let (_, value) = self.values.get(&TypeId::of::<S>())?;
        Arc::clone(value).downcast().ok()
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.values.values().map(|(name, _)| name))
            .finish()
    }
}

/// Something that a handler needs and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BindFault {
    /// What is missing.
    pub message: String,
    /// What to write.
    pub help: String,
}

impl BindFault {
    /// What is missing, and what to write.
    #[must_use]
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Resolves what one handler needs.
#[derive(Debug)]
pub struct Bind<'a> {
    states: &'a States,
    faults: Vec<BindFault>,
}

impl<'a> Bind<'a> {
    /// Resolves from `states`.
    #[must_use]
    pub fn new(states: &'a States) -> Self {
        Self {
            states,
            faults: Vec::new(),
        }
    }

    /// The state of type `S`; if there is none, that is noted.
    pub fn state<S: Send + Sync + 'static>(&mut self) -> Option<Arc<S>> {
        let found = self.states.get::<S>();
        if found.is_some() {
            return found;
        }
        if let Some(fault) = self.states.lacking.get(&TypeId::of::<S>()) {
            self.faults.push(fault.clone());
        } else {
            let short = short_type_name(type_name::<S>());
            self.fault(
                format!("needs `State<{short}>`, and the app has none"),
                format!("add `.state({short} {{ .. }})` to the app"),
            );
        }
        found
    }

    /// Notes that something is missing.
    pub fn fault(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(BindFault::new(message, help));
    }

    /// Everything that was noted.
    #[must_use]
    pub fn into_faults(self) -> Vec<BindFault> {
        self.faults
    }
}

/// A type's name without the paths: `Pool<Postgres>` for `db::Pool<db::Postgres>`.
pub(crate) fn short_type_name(full: &str) -> String {
    let mut short = String::with_capacity(full.len());
    let mut segment = String::new();
    for character in full.chars() {
        if character.is_alphanumeric() || character == '_' {
            segment.push(character);
        } else if character == ':' {
            segment.clear();
        } else {
            short.push_str(&segment);
            segment.clear();
            short.push(character);
        }
    }
    short.push_str(&segment);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_states_are_all_collected() {
        let mut states = States::default();
        assert!(states.insert(1_u8));
        assert!(!states.insert(2_u8));
        let mut bind = Bind::new(&states);
        assert_eq!(bind.state::<u8>().as_deref(), Some(&2));
        assert!(bind.state::<u16>().is_none());
        assert!(bind.state::<Vec<String>>().is_none());
        let faults = bind.into_faults();
        assert_eq!(faults.len(), 2);
        assert_eq!(
            faults[1].message,
            "needs `State<Vec<String>>`, and the app has none"
        );
    }

    #[test]
    fn names_lose_their_paths_only() {
        assert_eq!(short_type_name("a::b::C<d::E, f::G>"), "C<E, G>");
        assert_eq!(short_type_name("u8"), "u8");
    }
}
