//! The attribute and derive macros of Interline.
//!
//! Use them through the crate `interline`, which re-exports them.

mod args;
mod diagnostics;
mod emit;
mod failure;
mod literals;
mod message;
mod messages;
mod path;
mod service;
mod signature;
mod subscriber;

use proc_macro::TokenStream;

/// Makes a type a message.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    message::expand(input.into()).into()
}

/// Makes an enum of messages the payload of one subscriber.
#[proc_macro_derive(Messages, attributes(messages))]
pub fn derive_messages(input: TokenStream) -> TokenStream {
    messages::expand(input.into()).into()
}

/// Says for an error what becomes of the message whose handling failed.
#[proc_macro_derive(Failure, attributes(failure, fate))]
pub fn derive_failure(input: TokenStream) -> TokenStream {
    failure::expand(input.into()).into()
}

/// Declares a crate that holds handlers.
#[proc_macro]
pub fn service(input: TokenStream) -> TokenStream {
    service::expand(input.into()).into()
}

/// Makes a function consume messages.
#[proc_macro_attribute]
pub fn subscriber(attribute: TokenStream, item: TokenStream) -> TokenStream {
    subscriber::expand(attribute.into(), item.into()).into()
}
