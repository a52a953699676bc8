//! A small tool for operators: what a group has given up of a topic, shown, sent back, or removed.
//!
//! ```text
//! export INTERLINE__BROKERS__MAIN__URL=amqp://user:password@host/vhost
//! cargo run -p dead-letters -- list payments orders.placed
//! cargo run -p dead-letters -- redrive payments orders.placed --reason retries_exhausted --rate 10
//! ```

mod arguments;

use std::process::ExitCode;
use std::time::Duration;

use interline::messaging::{DeadLetter, DeadLetters, Redrive};
use interline::prelude::*;

use arguments::{Arguments, Command};

#[tokio::main]
async fn main() -> interline::Result<ExitCode> {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(help) => {
            eprintln!("{help}");
            return Ok(ExitCode::from(2));
        }
    };
    let config = Config::load()?.with("service.name", "dead-letters");
    let running = App::new(config).publish_only().launch().await?;
    running.ready(Duration::from_secs(30)).await?;
    let letters = running
        .manager()
        .dead_letters_of(&arguments.group, &arguments.topic)?;
    let text = run(&arguments, &letters).await;
    running.stop_within(Duration::from_secs(10)).await;
    println!("{}", text?);
    Ok(ExitCode::SUCCESS)
}

async fn run(arguments: &Arguments, letters: &DeadLetters) -> interline::Result<String> {
    let reason = arguments.reason.clone();
    let chosen = move |letter: &DeadLetter| {
        reason
            .as_deref()
            .is_none_or(|reason| letter.reason() == reason)
    };
    Ok(match &arguments.command {
        Command::List => {
            let found = letters.list(arguments.limit).await?;
            let lines: Vec<_> = found
                .iter()
                .filter(|letter| chosen(letter))
                .map(line)
                .collect();
            format!("{}{} dead letters", lines.concat(), lines.len())
        }
        Command::Show(id) => {
            let Some(id) = MessageId::parse(id) else {
                return Ok(format!("`{id}` is not a message id"));
            };
            let found = letters.show(&id, arguments.limit).await?;
            found.map_or_else(|| format!("no dead letter `{id}`"), |letter| whole(&letter))
        }
        Command::Redrive => {
            let mut redrive = Redrive::new().limit(arguments.limit).matching(chosen);
            if let Some(rate) = arguments.rate {
                redrive = redrive.rate(rate, Duration::from_secs(1));
            }
            if arguments.dry_run {
                let count = letters.redrive(&redrive.dry_run()).await?;
                format!("{count} dead letters would be sent back")
            } else {
                format!(
                    "{} dead letters were sent back",
                    letters.redrive(&redrive).await?
                )
            }
        }
        Command::Purge => {
            let count = letters.purge(arguments.limit, chosen).await?;
            format!("{count} dead letters were removed")
        }
    })
}

fn line(letter: &DeadLetter) -> String {
    let attempts = letter.attempts().unwrap_or(1);
    let error = letter.error().unwrap_or_default();
    format!(
        "{}  {:<18}  {attempts} attempts  {error}\n",
        letter.id(),
        letter.reason()
    )
}

fn whole(letter: &DeadLetter) -> String {
    let message = letter.message();
    let mut text = String::new();
    for (name, value) in message.headers.iter() {
        let value = value
            .to_text()
            .map_or_else(|| format!("{value:?}"), |text| text.into_owned());
        text.push_str(&format!("{name}: {value}\n"));
    }
    format!("{text}\n{}", String::from_utf8_lossy(&message.body))
}
