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
mod service_client;
mod signature;
mod subscriber;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Makes a type a message: its topic, key, id and version are its contract, written once.
///
/// ```ignore
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "orders.{region}.placed", key = order_id)]
/// pub struct OrderPlaced {
///     pub order_id: OrderId,
///     pub region: Region,
/// }
/// ```
///
/// | option | meaning | unless given |
/// |---|---|---|
/// | `topic = ".."` | the topic; `{field}` stands for a field; or the path of a constant | must be given |
/// | `key = field` | messages of one key can be handled in order | unordered |
/// | `id = field` | the field that holds the identity | a new one at each publish |
/// | `version = 2` | changes when old readers cannot read the new form | 1 |
/// | `from(1 = OldType)` | reads version 1 as `OldType`, then `From<OldType>` | |
/// | `name = ".."` | the name on the wire | the type's |
/// | `codec = json` | `json`, `msgpack`, `protobuf`, or a codec of your own as a string | the broker's |
/// | `ttl = "1h"` | how long it is worth delivering | for ever |
/// | `priority = 5` | 0 to 255, on brokers that have priorities | none |
/// | `subscribers = optional` | it is fine that nobody listens | unroutable is an error |
/// | `reply = Type` | the message that answers it, for `publisher.request` and `Reply<Type>` | it is no request |
/// | `crate = path` | where the crate `interline` is | `::interline` |
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    message::expand(input.into()).into()
}

/// Makes an enum of messages the payload of one subscriber, which then takes all of them.
///
/// Each variant holds one message. `#[messages(crate = path)]` says where the crate `interline` is.
///
/// ```ignore
/// #[derive(Messages)]
/// pub enum OrderEvent {
///     Placed(OrderPlaced),
///     Cancelled(OrderCancelled),
/// }
/// ```
#[proc_macro_derive(Messages, attributes(messages))]
pub fn derive_messages(input: TokenStream) -> TokenStream {
    messages::expand(input.into()).into()
}

/// Says for an error what becomes of the message whose handling failed.
///
/// Every variant of an enum, or the struct itself, has one `#[fate(..)]`:
///
/// | fate | what becomes of the message |
/// |---|---|
/// | `retry` | it is tried again when the retry policy says so |
/// | `retry(after = "5s")` | it is tried again after this time |
/// | `retry(after = field)` | the same, with the time in a field: `Duration` or `Option<Duration>` |
/// | `dead_letter` | it goes to the dead letters now |
/// | `discard` | it is dropped |
/// | `pause = "30s"` | the subscription stops fetching for this time, then it is tried again |
///
/// `#[failure(crate = path)]` says where the crate `interline` is.
///
/// ```ignore
/// #[derive(Debug, thiserror::Error, Failure)]
/// pub enum ChargeError {
///     #[error("bank unreachable")]
///     #[fate(retry)]
///     Network(#[from] BankError),
///     #[error("card refused")]
///     #[fate(dead_letter)]
///     CardRefused,
/// }
/// ```
#[proc_macro_derive(Failure, attributes(failure, fate))]
pub fn derive_failure(input: TokenStream) -> TokenStream {
    failure::expand(input.into()).into()
}

/// Declares a crate that holds handlers, once, at its root: the service's name, which is also the
/// default group of its subscribers.
///
/// It makes a function `service()`, whose result is given to `App::with`. A program admits itself.
/// `service!("billing", crate = path)` says where the crate `interline` is.
///
/// ```ignore
/// interline::service!("billing");
/// ```
#[proc_macro]
pub fn service(input: TokenStream) -> TokenStream {
    service::expand(input.into()).into()
}

/// Makes an `async fn` consume messages. The function stays as written and can be called.
///
/// ```ignore
/// #[subscriber(concurrency = 16, ordered_by = key, retry(attempts = 6, first = "250ms"))]
/// async fn charge(
///     order: OrderPlaced,
///     bank: State<Bank>,
///     #[header("x-tenant")] tenant: Tenant,
/// ) -> Result<Charged, ChargeError> { .. }
/// ```
///
/// **The message** comes first: `T`, `&T`, `Option<T>` (`None` for an empty body), `Batch<T>`, `Raw`,
/// where `T` derives `Message` or `Messages`. `Option`, `Batch`, `Raw` and `Settle` are recognised by
/// name; an alias is not seen.
///
/// **After it** stands what implements `Extract` (`State<S>`, `Publisher`, `Out<M>`, `Meta`, `Headers`,
/// `Cancel`, `Settle`, types of your own), `#[header("..")]` values and `#[segment]` values of the
/// topic, both of any type that implements `FromStr`, or an `Option` of one. Extractors of a batch take
/// their value from its first message.
///
/// | option | meaning | unless given |
/// |---|---|---|
/// | `name = ".."` | the stable name, for configuration, metrics and derived ids | the function's |
/// | `group = ".."`, `each_instance` | who shares the messages; every instance gets all | the service's name |
/// | `broker = ".."` | the broker, by its name in the configuration | the routes decide |
/// | `concurrency = 16` | messages handled at once, or lanes where order is kept | 16 |
/// | `ordered_by = key`, `key_in_process` | order of the messages of a key: everywhere, or in one process | none |
/// | `batch(max = 200, wait = "50ms")` | how a `Batch<T>` is formed | one by one |
/// | `timeout = "10s"` | how long an attempt may take | 30 s |
/// | `retry(attempts, first, max, factor)`, `none` | how failed attempts are repeated | 5, 200 ms, 30 s, 2 |
/// | `dead_letter = false` | what is given up is dropped | kept |
/// | `ack = after`, `on_receive`, `manual` | when it is acknowledged; `manual` is by `Settle`; after `on_receive` all attempts are made in this process, and a crash or the last failed one loses the message | `after` |
/// | `delivery = at_most_once` | it is acknowledged before it is handled, and never tried again; the only way on `redis-pubsub` | `at_least_once` |
/// | `on_unknown = skip`, `dead_letter` | what becomes of a message without a handler | `dead_letter` |
/// | `start = new`, `earliest` | where a new subscription begins; the same on RabbitMQ, which keeps nothing from before | `new` |
/// | `rate = "100/s"` | how many may be started in which time | unlimited |
/// | `breaker`, `breaker(ratio, minimum, window, wait, max)` | fetching stops when too large a share of attempts fails, and one message at a time finds out when handling works again | never |
/// | `topology = apply`, `verify`, `off` | what is done about queues at start | `apply` |
/// | `topic = ".."` | messages of others: any type that implements `Deserialize`, or `Raw` | the contract's |
/// | `codec = json` | for messages without a content-type | the broker's |
/// | `kafka(..)` | what only Kafka understands; see `KafkaOptions` | |
/// | `rabbitmq(..)` | what only RabbitMQ understands; see `RabbitMqOptions` | |
/// | `redis(..)` | what only Redis understands: `stream` and `group` of one's own | |
/// | `companion = Name` | the type beside the function, where its own name is taken | the function's name |
/// | `crate = path` | where the crate `interline` is | `::interline` |
#[proc_macro_attribute]
pub fn subscriber(attribute: TokenStream, item: TokenStream) -> TokenStream {
    subscriber::expand(attribute.into(), &item.into()).into()
}

/// Makes a trait the client of another service: `OrdersClient` for a trait `Orders`.
///
/// ```ignore
/// #[service_client(service = "orders", base = "/api/v1", timeout = "2s")]
/// pub trait Orders {
///     #[get("/orders/{id}")]
///     async fn order(&self, id: OrderId) -> Result<Option<Order>, CallError>;
///
///     #[get("/orders")]
///     async fn orders(&self, #[query] filter: &Filter, #[header("x-tenant")] tenant: &str)
///         -> Result<Vec<Order>, CallError>;
///
///     #[post("/orders")]
///     #[idempotent]
///     async fn place(&self, #[body] order: &NewOrder) -> Result<Order, CallError>;
/// }
/// ```
///
/// The client is taken as `State<OrdersClient>`, or from `running.client::<OrdersClient>()`; where the
/// service is stands in `[services.orders]` of the configuration. `OrdersClient::from_impl(value)`
/// makes one of any implementation of the trait, for tests; implementations write `async fn`.
///
/// | option | meaning | unless given |
/// |---|---|---|
/// | `service = ".."` | the service, by its name in the configuration | must be given |
/// | `base = "/.."` | what all paths begin with | nothing |
/// | `timeout = "2s"` | how long a call may take with all its attempts | 10 s |
/// | `attempt_timeout = "500ms"` | how long one attempt may take | what remains |
/// | `retry(attempts, first, max)` | how a call is repeated | 3, 50 ms, 2 s |
/// | `retry(jitter = full)`, `equal`, `decorrelated`, `none` | how the waits are drawn: from nothing to the longest; from half of it; from `first` to three times the wait before; always the longest | `full` |
/// | `retry(hedge = "80ms")` | what may be repeated is sent a second time when it has not been answered then | never |
/// | `retry(hedge_percentile = 95)` | the same when it takes longer than so many in a hundred usually do; `hedge` is then the least, and what counts while too little is known | none |
/// | `error = Type` | what the service says about its errors, read from JSON | `Problem` |
/// | `client = Name` | the name of the client | the trait's, and `Client` |
/// | `crate = path` | where the crate `interline` is | `::interline` |
///
/// **A method** has `#[get("/path")]`, `#[post]`, `#[put]`, `#[patch]`, `#[delete]` or `#[head]`, and
/// beside it:
///
/// | attribute | meaning |
/// |---|---|
/// | `#[idempotent]` | its calls carry an `Idempotency-Key`, the same on every attempt, so that they may be repeated |
/// | `#[timeout("2s")]`, `#[attempt_timeout("500ms")]` | in place of the trait's |
/// | `#[retry(attempts, first, max, jitter, hedge, hedge_percentile)]` | in place of the trait's |
/// | `#[fallback(no_order)]` | where the service gives nothing, this `async fn` of the error gives the result |
/// | `#[fallback(no_order(id))]` | the same, with arguments of the method, by reference, after the error |
/// | `#[fallback(value = Vec::new())]` | the same with a value |
/// | `#[fallback(service = "orders-replica")]` | the same with what that service answers to the same request, in the time that is left of the call: its own service has half of it |
/// | `#[fallback(service = "..", value = ..)]`, `#[fallback(service = "..", no_order(id))]` | where that service gives nothing either, the value or the function |
/// | `#[cache]`, `#[cache(ttl = "30s")]` | answers are kept as long as the service says, and where it says nothing for `ttl`, which is also the most |
/// | `#[cache(.., stale_while_revalidate = "10s", stale_if_error = "5m")]` | how much longer they stand in while another is asked for, and where the service does not answer |
/// | `#[reconnect]` | a stream of events that breaks is asked for again, with `Last-Event-ID` |
///
/// GET, HEAD, PUT, DELETE and what is `#[idempotent]` is repeated after a failure; anything else only
/// where it was not sent.
///
/// **Its arguments** are values of the path, by their names in its template, or have `#[query]` (a
/// scalar, a list, or a struct whose fields are the keys; `#[query("name")]` renames),
/// `#[header("name")]`, or `#[body]`, which is sent in JSON; `#[body(form)]`, `#[body(msgpack)]` and
/// `#[body(bytes)]` send it in another form, and a `BodyStream` is sent in pieces.
///
/// **It returns** a `Result` of what the answer's JSON is read as, `()`, `Bytes`, `ByteStream`,
/// `EventStream`, `Option<..>` (`None` for 404) or `Response<..>` (with status and headers), and of `CallError` or an error that implements
/// `From<CallError>`. These types are recognised by name; an alias is not seen.
#[proc_macro_attribute]
pub fn service_client(attribute: TokenStream, item: TokenStream) -> TokenStream {
    service_client::expand(attribute.into(), &item.into()).into()
}
