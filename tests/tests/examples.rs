//! The examples do what the README says, as programs of their own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interline_tests::harness::{self, Case};
use interline_tests::redis::Database;
use interline_tests::servers::{self, Server, Vhost};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const BROKER_URL: &str = "INTERLINE__BROKERS__MAIN__URL";
/// How long a program may take to say what is expected of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Compiling may have to be done first.
const LIMIT: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    harness::run([
        Case::blocking("the_quickstart_says_hello", quickstart).limit(LIMIT),
        Case::blocking("the_quickstart_builds_outside_of_the_workspace", outside).limit(LIMIT),
        Case::blocking("the_shop_adds_up_on_the_embedded_broker", shop_embedded).limit(LIMIT),
        Case::new("the_shop_adds_up_on_rabbitmq", shop_rabbitmq)
            .needs(Server::RabbitMq)
            .limit(LIMIT),
        Case::new("the_shop_adds_up_on_kafka", shop_kafka)
            .needs(Server::Kafka)
            .limit(LIMIT),
        Case::new("the_shop_adds_up_on_redis", shop_redis)
            .needs(Server::Redis)
            .limit(LIMIT),
        Case::new("the_shop_adds_up_in_three_processes", shop_in_three)
            .needs(Server::RabbitMq)
            .limit(LIMIT),
        Case::new(
            "an_existing_queue_is_read_without_permission_to_configure",
            existing_queue,
        )
        .needs(Server::RabbitMq)
        .limit(LIMIT),
    ])
}

fn quickstart() -> Outcome {
    let output = program("quickstart")?.output()?;
    assert_success(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello, world\n");
    Ok(())
}

/// Copied out, with nothing but a version as its dependency.
fn outside() -> Outcome {
    let root = workspace();
    let folder = tempfile::tempdir()?;
    let manifest = fs::read_to_string(root.join("examples/quickstart/Cargo.toml"))?;
    let manifest = manifest.replace(", path = \"../../runtime\"", "");
    assert!(!manifest.contains("path"), "{manifest}");
    let patches = format!(
        "\n[workspace]\n\n[patch.crates-io]\ninterline = {{ path = {:?} }}\ninterline-macros = {{ path = {:?} }}\n",
        root.join("runtime"),
        root.join("macros")
    );
    fs::write(folder.path().join("Cargo.toml"), manifest + &patches)?;
    fs::create_dir(folder.path().join("src"))?;
    fs::copy(
        root.join("examples/quickstart/src/main.rs"),
        folder.path().join("src/main.rs"),
    )?;
    fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock"))?;
    let output = Command::new(cargo())
        .args(["check", "--quiet"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", target().join("outside"))
        .output()?;
    assert_success(&output);
    Ok(())
}

fn shop_embedded() -> Outcome {
    let output = program("shop")?.output()?;
    assert_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("32 shipped + 8 given up = 40 of 40 orders: adds up\n"),
        "{text}"
    );
    // One of two instances of stock fails for a third of the orders, and no order is the worse for it.
    let count = |what: &str| -> Result<usize, Box<dyn std::error::Error>> {
        let line = text.lines().find_map(|line| line.strip_prefix(what));
        Ok(line.ok_or(text.clone())?.trim().parse()?)
    };
    assert_eq!(count("calls to stock that were answered")?, 40);
    assert!(
        (1..=13).contains(&count("  refused there, asked elsewhere")?),
        "{text}"
    );
    let output = program("shop")?.arg("--sound-stock").output()?;
    assert_success(&output);
    let sound = String::from_utf8_lossy(&output.stdout);
    assert!(
        sound.contains("  refused there, asked elsewhere         0\n"),
        "{sound}"
    );
    let file = workspace().join("examples/shop/orders.jsonl");
    let output = program("shop")?.arg("--file").arg(file).output()?;
    assert_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("4 shipped + 2 given up = 6 of 6 orders: adds up\n"),
        "{text}"
    );
    Ok(())
}

async fn shop_redis() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let output = program("shop")?.env(BROKER_URL, &database.url).output()?;
    assert_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("32 shipped + 8 given up = 40 of 40 orders: adds up\n"),
        "{text}"
    );
    let dead = ["XLEN", "{orders.placed}:payments:dlq"];
    assert_eq!(database.number(&dead).await?, 8);
    let mut tool = program("dead-letters")?;
    tool.args(["redrive", "payments", "orders.placed", "--limit", "3"]);
    let output = tool.env(BROKER_URL, &database.url).output()?;
    assert_success(&output);
    let moved = String::from_utf8(output.stdout)?;
    assert_eq!(moved, "3 dead letters were sent back\n");
    assert_eq!(database.number(&dead).await?, 5);
    database.delete().await?;
    Ok(())
}

async fn shop_rabbitmq() -> Outcome {
    let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
    let output = program("shop")?.env(BROKER_URL, &vhost.url).output()?;
    assert_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("32 shipped + 8 given up = 40 of 40 orders: adds up\n"),
        "{text}"
    );
    let queue = vhost
        .management
        .wait_for_queue(
            "payments.orders.placed.dlq",
            |queue| queue.messages_ready == Some(8),
            PATIENCE,
        )
        .await?;
    assert_eq!(queue.kind, "quorum");
    let operate = |words: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let mut tool = program("dead-letters")?;
        tool.args(words).env(BROKER_URL, &vhost.url);
        let output = tool.output()?;
        assert_success(&output);
        Ok(String::from_utf8(output.stdout)?)
    };
    let place = ["payments", "orders.placed"];
    let listed = operate(&["list", place[0], place[1], "--reason", "rejected"])?;
    assert!(listed.ends_with("4 dead letters\n"), "{listed}");
    assert!(listed.contains("card 4009 refused"), "{listed}");
    let id = listed.split_whitespace().next().ok_or("a first word")?;
    let shown = operate(&["show", place[0], place[1], id])?;
    assert!(shown.contains("x-dlq-reason: rejected\n"), "{shown}");
    let counted = operate(&["redrive", place[0], place[1], "--dry-run"])?;
    assert_eq!(counted, "8 dead letters would be sent back\n");
    let moved = operate(&["redrive", place[0], place[1], "--limit", "3"])?;
    assert_eq!(moved, "3 dead letters were sent back\n");
    let removed = operate(&["purge", place[0], place[1]])?;
    assert_eq!(removed, "5 dead letters were removed\n");
    let three = |queue: &interline_tests::management::Queue| queue.messages_ready == Some(3);
    vhost
        .management
        .wait_for_queue("payments.orders.placed", three, PATIENCE)
        .await?;
    vhost.delete().await?;
    Ok(())
}

async fn shop_kafka() -> Outcome {
    let server = servers::kafka().await?;
    let output = program("shop")?
        .env(BROKER_URL, server.url())
        .env("INTERLINE__NAMING__PREFIX", servers::unique_prefix())
        .output()?;
    assert_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("32 shipped + 8 given up = 40 of 40 orders: adds up\n"),
        "{text}"
    );
    Ok(())
}

async fn shop_in_three() -> Outcome {
    let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
    let start = |role: &str| -> Result<Lines, Box<dyn std::error::Error>> {
        let mut program = program("shop")?;
        program.args(["--only", role]).env(BROKER_URL, &vhost.url);
        Lines::of(program)
    };
    let others = [start("payments")?, start("shipping")?];
    for queue in ["payments.orders.placed", "shipping.payments.charged"] {
        let consumed = |queue: &interline_tests::management::Queue| queue.consumers == Some(1);
        vhost
            .management
            .wait_for_queue(queue, consumed, PATIENCE)
            .await?;
    }
    let orders = start("orders")?;
    orders.wait_for("32 shipped + 8 given up = 40 of 40 orders: adds up")?;
    assert!(orders.end()?.success());
    for other in others {
        other.terminate()?;
        assert!(other.end()?.success());
    }
    vhost.delete().await?;
    Ok(())
}

async fn existing_queue() -> Outcome {
    let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
    let arguments = json!({ "x-queue-type": "classic" });
    vhost
        .management
        .declare_queue("legacy-invoices", arguments.clone())
        .await?;
    vhost
        .management
        .declare_queue("legacy-invoices.dlq", arguments)
        .await?;
    vhost.management.create_user("reader", "secret").await?;
    vhost
        .management
        .set_permissions("reader", "^$", ".*", ".*")
        .await?;
    let host = vhost
        .url
        .rsplit_once('@')
        .ok_or("an address with a user")?
        .1;
    let mut program = program("existing-queue")?;
    program.env(BROKER_URL, format!("amqp://reader:secret@{host}"));
    let reader = Lines::of(program)?;

    let connection = Connection::connect(&vhost.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    for body in [
        "{\"number\":\"7\",\"lines\":[\"a\",\"b\"]}",
        "not json",
        "{\"number\":\"8\"}",
    ] {
        let publish = channel.basic_publish(
            "".into(),
            "legacy-invoices".into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            BasicProperties::default(),
        );
        publish.await?.await?;
    }
    reader.wait_for("invoice 7 of head office with 2 lines")?;
    reader.wait_for("invoice 8 of head office with 0 lines")?;
    let one = |queue: &interline_tests::management::Queue| queue.messages_ready == Some(1);
    vhost
        .management
        .wait_for_queue("legacy-invoices.dlq", one, PATIENCE)
        .await?;
    reader.terminate()?;
    assert!(reader.end()?.success());
    vhost.management.delete_user("reader").await?;
    vhost.delete().await?;
    Ok(())
}

/// A running program whose output is read line by line.
struct Lines {
    child: Mutex<Child>,
    read: Arc<Mutex<Vec<String>>>,
}

impl Lines {
    fn of(mut program: Command) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = program
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let output = child.stdout.take().ok_or("the output is piped")?;
        let read: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&read);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Ok(Self {
            child: Mutex::new(child),
            read,
        })
    }

    fn wait_for(&self, wanted: &str) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let lines = self
                .read
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if lines.iter().any(|line| line == wanted) {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let lines = self
            .read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join("\n");
        Err(format!("`{wanted}` was not printed, but\n{lines}").into())
    }

    fn terminate(&self) -> Outcome {
        let id = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .id();
        let killed = Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()?;
        assert!(killed.success());
        Ok(())
    }

    fn end(&self) -> Result<std::process::ExitStatus, Box<dyn std::error::Error>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err("the program did not end".into());
            }
            drop(child);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The program of an example, built with everything switched on.
fn program(name: &str) -> Result<Command, Box<dyn std::error::Error>> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !*built {
        let output = Command::new(cargo())
            .args(["build", "--quiet", "--locked", "--all-features"])
            .args([
                "-p",
                "dead-letters",
                "-p",
                "existing-queue",
                "-p",
                "gateway",
                "-p",
                "quickstart",
                "-p",
                "shop",
            ])
            .current_dir(workspace())
            .output()?;
        assert_success(&output);
        *built = true;
    }
    let mut command = Command::new(target().join("debug").join(name));
    command
        .env_remove(BROKER_URL)
        .current_dir(std::env::temp_dir());
    Ok(command)
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .map_or_else(|| manifest.to_owned(), Path::to_owned)
}

fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}
