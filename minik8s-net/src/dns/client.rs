//! Asking a name server by hand, for commands that show what it says.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

/// How long an answer is waited for, each of so many times.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u32 = 2;

/// The IPv4 addresses that a server has for a name; none where there is no such name.
///
/// # Errors
/// A name that is none, a server that does not answer, or that fails.
pub async fn lookup(server: SocketAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let mut name = Name::from_ascii(name).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    name.set_fqdn(true);
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.metadata.id = rand::random();
    question.add_query(Query::query(name, RecordType::A));
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        match tokio::time::timeout(PATIENCE, ask(server, &bytes, question.metadata.id)).await {
            Ok(Ok(answer)) => return addresses(&answer),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

async fn ask(server: SocketAddr, question: &[u8], id: u16) -> io::Result<Message> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = Message::from_vec(&buffer[..length]).ok().filter(|answer| answer.metadata.id == id) {
            return Ok(answer);
        }
    }
}

fn addresses(answer: &Message) -> io::Result<Vec<IpAddr>> {
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(io::Error::other(format!("the server says {code}"))),
    }
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        _ => None,
    };
    Ok(answer.answers.iter().filter_map(|record| address(&record.data)).collect())
}
