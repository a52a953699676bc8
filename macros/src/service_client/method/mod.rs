//! One method of a client: where each argument goes, and what becomes of the answer.

mod attributes;
mod result;
mod signature;

use proc_macro2::Ident;
use syn::{Attribute, TraitItemFn, Type};

use crate::args::Args;
use crate::diagnostics::Errors;

use super::conditions;
use super::fallback::Fallback;
use super::limits::Limits;
use super::template::Piece;
use attributes::extra;

pub(super) use attributes::{EXTRAS, PLACES, RETRY, VERBS};
pub(super) use result::Shape;
pub(super) use signature::{Argument, Format, Place};

/// What is known of a method that has no mistake.
pub(super) struct Method {
    pub(super) ident: Ident,
    /// Its attributes `#[cfg(..)]`: without it there is nothing of it anywhere.
    pub(super) conditions: Vec<Attribute>,
    pub(super) verb: &'static str,
    pub(super) template: String,
    pub(super) pieces: Vec<Piece>,
    pub(super) keyed: bool,
    pub(super) reconnects: bool,
    pub(super) limits: Limits,
    pub(super) fallback: Option<Fallback>,
    pub(super) cache: Option<Args>,
    pub(super) arguments: Vec<Argument>,
    pub(super) shape: Shape,
    pub(super) output: Type,
    pub(super) ok: Type,
    pub(super) error: Type,
}

/// Reads a method of a trait with these limits. `None` after noting what is wrong.
pub(super) fn read(item: &TraitItemFn, of_trait: &Limits, errors: &mut Errors) -> Option<Method> {
    let before = errors.count();
    signature::check(item, errors);
    let (verb, path) = attributes::verb(item, errors);
    let (template, pieces) = path.unwrap_or_default();
    let keyed = attributes::keyed(item, verb, errors);
    let limits = Limits {
        timeout: attributes::duration(item, "timeout", errors),
        attempt_timeout: attributes::duration(item, "attempt_timeout", errors),
        retry: attributes::retry(item, errors),
    };
    limits.check(of_trait, errors);
    let fallback = extra(item, "fallback");
    let fallback = fallback.and_then(|attribute| Fallback::read(attribute, item, errors));
    attributes::once(item, errors);
    let arguments = signature::arguments(item, verb, &pieces, errors);
    let returned = result::returned(item, verb, errors);
    let shape = returned.as_ref().map(|(shape, ..)| shape);
    let sent = (keyed, verb, &*arguments);
    attributes::repeats(item, sent, &limits.retry, errors);
    if let Some(fallback) = &fallback {
        fallback.check_service(sent, errors);
    }
    let cache = attributes::cache(item, verb, shape, errors);
    let reconnects = attributes::reconnects(item, shape, sent, errors);
    if let Some(gone) = fallback
        .as_ref()
        .and_then(|fallback| fallback.wants_of(&arguments))
    {
        errors.at(
            gone,
            format!("`{gone}` is gone when the fallback is called: it was sent"),
            "leave it out",
        );
    }
    if errors.count() > before {
        return None;
    }
    let (shape, output, [ok, error]) = returned?;
    Some(Method {
        ident: item.sig.ident.clone(),
        conditions: conditions(&item.attrs).cloned().collect(),
        verb: verb?,
        template,
        pieces,
        keyed,
        reconnects,
        limits,
        fallback,
        cache,
        arguments,
        shape,
        output,
        ok,
        error,
    })
}
