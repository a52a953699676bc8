//! Who may do what with a topic. The client library has no call for it.

use interline::testing::ServerFixture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Outcome;

/// Everything.
pub const ALL: u8 = 2;
pub const READ: u8 = 3;
pub const DESCRIBE: u8 = 8;

/// A server that asks who may do what, and lets a user `app` with the password `open-sesame` in by a door of its
/// own; whoever comes by the other may do everything, and so may everybody with what has no rule.
pub async fn server() -> Result<ServerFixture, crate::support::Error> {
    let server = ServerFixture::kafka()
        .user("app", "open-sesame")
        .config_line(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        .config_line("super.users=User:ANONYMOUS")
        .config_line("allow.everyone.if.no.acl.found=true")
        .start()
        .await?;
    Ok(server)
}

/// Has the server let `who` do something with a topic, and nobody do what nobody was let.
pub async fn allow(server: &ServerFixture, topic: &str, who: &str, what: u8) -> Outcome {
    let text = |text: &str| {
        let length = i16::try_from(text.len()).expect("a short text");
        [&length.to_be_bytes()[..], text.as_bytes()].concat()
    };
    let request = [
        // CreateAcls, the first question of this connection.
        vec![0, 30, 0, 1, 0, 0, 0, 1],
        text("test"),
        // One: of the topic of this very name.
        vec![0, 0, 0, 1, 2],
        text(topic),
        vec![3],
        text(who),
        text("*"),
        // It is allowed.
        vec![what, 3],
    ]
    .concat();
    let mut stream = TcpStream::connect(server.url().trim_start_matches("kafka://")).await?;
    let length = i32::try_from(request.len())?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&request).await?;
    let length = usize::try_from(stream.read_i32().await?)?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    // Behind its number, the throttling and the count stands the code.
    assert_eq!(answer.get(12..14), Some(&[0, 0][..]), "{answer:?}");
    Ok(())
}
