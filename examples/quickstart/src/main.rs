//! The smallest program: one message, one subscriber, nothing to install.

use std::time::Duration;

use interline::prelude::*;

interline::service!("quickstart");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "greetings.sent")]
struct Greeting {
    name: String,
}

#[subscriber]
async fn greet(greeting: Greeting) {
    println!("hello, {}", greeting.name);
}

#[tokio::main]
async fn main() -> interline::Result<()> {
    let app = App::new(Config::load()?).on_ready(|running| async move {
        let greeting = Greeting {
            name: "world".to_owned(),
        };
        if let Err(error) = running.publisher().publish(&greeting).await {
            eprintln!("{error}");
        }
        // What was published is handled before the app goes down.
        running.stop_within(Duration::from_secs(5)).await;
    });
    runtime::start(app).await
}
