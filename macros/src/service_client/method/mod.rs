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
    /// In the places of its options: `timeout`, `attempt_timeout`.
    pub(super) timeout: Option<std::time::Duration>,
    pub(super) attempt_timeout: Option<std::time::Duration>,
    pub(super) retry: Args,
    pub(super) fallback: Option<Fallback>,
    pub(super) cache: Option<Args>,
    pub(super) arguments: Vec<Argument>,
    pub(super) shape: Shape,
    pub(super) output: Type,
    pub(super) ok: Type,
    pub(super) error: Type,
}

/// Reads a method. `None` after noting what is wrong.
pub(super) fn read(item: &TraitItemFn, errors: &mut Errors) -> Option<Method> {
    let before = errors.count();
    signature::check(item, errors);
    let (verb, path) = attributes::verb(item, errors);
    let (template, pieces) = path.unwrap_or_default();
    let keyed = extra(item, "idempotent").inspect(|attribute| {
        if attribute.meta.require_path_only().is_err() {
            errors.at(
                attribute,
                "`#[idempotent]` has no options",
                "write `#[idempotent]`",
            );
        }
    });
    let timeout = attributes::duration(item, "timeout", errors);
    let attempt_timeout = attributes::duration(item, "attempt_timeout", errors);
    let retry = attributes::retry(item, errors);
    let fallback = extra(item, "fallback");
    let fallback = fallback.and_then(|attribute| Fallback::read(attribute, item, errors));
    attributes::once(item, errors);
    let arguments = signature::arguments(item, verb, &pieces, errors);
    let returned = result::returned(item, verb, errors);
    let shape = returned.as_ref().map(|(shape, ..)| shape);
    if let (Some(attribute), Some(verb @ ("post" | "patch")), None) =
        (extra(item, "retry"), verb, keyed)
    {
        errors.at(
            attribute,
            format!("a {} may not be repeated: it would be done twice", verb.to_uppercase()),
            "add `#[idempotent]`, which sends an `Idempotency-Key` that the service must honour, or \
             leave out `#[retry]`",
        );
    }
    let cache = attributes::cache(item, verb, shape, errors);
    let repeats = (keyed.is_some(), verb, &*arguments);
    let reconnects = attributes::reconnects(item, shape, repeats, errors);
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
        keyed: keyed.is_some(),
        reconnects,
        timeout,
        attempt_timeout,
        retry,
        fallback,
        cache,
        arguments,
        shape,
        output,
        ok,
        error,
    })
}
