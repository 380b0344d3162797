//! Exchanging batches and questions with the kernel.

use super::batch::Batch;
use super::wire::{self, F_DUMP, HEADER, MSG_DONE, MSG_ERROR, Messages, messages, u32_at};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::time::Duration;

const GET_GENERATION: u16 = (wire::NFTABLES << 8) | 16;

const ENOENT: i32 = 2;
const ERESTART: i32 = 85;
const EMSGSIZE: i32 = 90;

/// Why the kernel did not take a batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// Somebody changed rules since the generation that the batch is based on.
    #[error("the rules were changed by somebody else at the same time")]
    Stale,
    #[error("{what}: {source}")]
    Refused { what: String, source: io::Error },
    #[error("netlink socket")]
    Io(#[from] io::Error),
}

impl NftError {
    /// What was to be changed is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, NftError::Refused { source, .. } if source.raw_os_error() == Some(ENOENT))
    }
}

/// A socket of the namespace it was made in. Calls block for as long as the kernel takes.
pub(crate) struct NftSocket {
    socket: Socket,
    room: usize,
}

impl std::fmt::Debug for NftSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NftSocket").finish_non_exhaustive()
    }
}

impl NftSocket {
    pub(crate) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // The kernel answers within the call that asks; waiting would only ever mean a lost answer.
        socket.set_non_blocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        Ok(Self { socket, room: 0 })
    }

    /// Sends a transaction and waits for its fate. `false` where it changes nothing.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<bool, NftError> {
        let Some((bytes, last)) = batch.finish() else { return Ok(false) };
        self.make_room(bytes.len())?;
        self.drain();
        match self.socket.send(&bytes, 0) {
            Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
                let what = format!("a change of {} bytes", bytes.len());
                return Err(NftError::Refused { what, source: error });
            }
            sent => sent?,
        };
        self.verdict(&bytes, last).map(|()| true)
    }

    /// Reads answers until that of the last message, or the first refusal.
    fn verdict(&self, sent: &[u8], last: u32) -> Result<(), NftError> {
        loop {
            let (bytes, _) = self.receive()?;
            for message in messages(&bytes).filter(|m| m.kind == MSG_ERROR) {
                let code = u32_at(message.body, 0).unwrap_or_default().cast_signed().wrapping_neg();
                match code {
                    0 if message.sequence == last => return Ok(()),
                    0 => {}
                    ERESTART => return Err(NftError::Stale),
                    _ => {
                        let what = describe(sent, &message);
                        return Err(NftError::Refused { what, source: io::Error::from_raw_os_error(code) });
                    }
                }
            }
        }
    }

    /// The number of the current generation of all rules of this namespace.
    pub(crate) fn generation(&mut self) -> Result<u32, NftError> {
        let mut out = Messages::default();
        out.begin(GET_GENERATION, 0, 0, 0);
        out.end();
        let mut generation = 0;
        self.ask(out, |message| {
            for (kind, value) in message.attributes() {
                if kind == 1 {
                    generation = wire::be32(value).unwrap_or_default();
                }
            }
        })?;
        Ok(generation)
    }

    /// Asks for everything of a kind: `fill` adds the attributes of the question.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Messages),
        take: impl FnMut(wire::Message<'_>),
    ) -> Result<(), NftError> {
        let mut out = Messages::default();
        out.begin(kind, F_DUMP, family, 0);
        fill(&mut out);
        out.end();
        self.ask(out, take)
    }

    /// Sends one message whose only answer is whether it was done.
    pub(crate) fn tell(&mut self, mut out: Messages) -> Result<(), NftError> {
        out.want_ack();
        self.ask(out, |_| {})
    }

    fn ask(&mut self, question: Messages, mut take: impl FnMut(wire::Message<'_>)) -> Result<(), NftError> {
        self.drain();
        self.socket.send(&question.bytes, 0)?;
        loop {
            let (bytes, _) = self.receive()?;
            let mut more = false;
            for message in messages(&bytes) {
                match message.kind {
                    MSG_DONE => return Ok(()),
                    MSG_ERROR => {
                        let code = u32_at(message.body, 0).unwrap_or_default().cast_signed().wrapping_neg();
                        if code == 0 {
                            return Ok(());
                        }
                        let what = describe(&question.bytes, &message);
                        return Err(NftError::Refused { what, source: io::Error::from_raw_os_error(code) });
                    }
                    _ => {
                        more |= message.flags & 0x2 != 0;
                        take(message);
                    }
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        for _ in 0..500 {
            match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                other => return other,
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer"))
    }

    /// Forgets what an earlier, failed exchange left unread.
    fn drain(&self) {
        while self.socket.recv_from_full().is_ok() {}
    }

    /// A message may be as long as the buffer for sending.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let wanted = bytes.next_power_of_two().max(1 << 20);
        if wanted > self.room {
            setsockopt(&self.socket, sockopt::SndBufForce, &wanted)?;
            self.room = wanted;
        }
        Ok(())
    }
}

/// Names the message that an answer refuses, and the kernel's own words about it.
fn describe(sent: &[u8], answer: &wire::Message<'_>) -> String {
    let kinds = [
        "add table",
        "",
        "delete table",
        "add chain",
        "",
        "delete chain",
        "add rule",
        "",
        "delete rules",
        "add set",
        "",
        "delete set",
        "add elements",
        "",
        "delete elements",
    ];
    let refused = messages(sent).find(|m| m.sequence == answer.sequence);
    let name = refused.map_or_else(String::new, |message| {
        let texts: Vec<String> = message
            .attributes()
            .filter(|(kind, value)| (1..4).contains(kind) && value.last() == Some(&0) && value.is_ascii())
            .map(|(_, value)| wire::text(value))
            .collect();
        let what = kinds.get(usize::from(message.kind & 0xff)).copied().unwrap_or("change");
        format!("{what} {}", texts.join(" "))
    });
    // With capped answers the extended part follows the header of the message that is refused.
    let words = answer.body.get(4 + HEADER..).and_then(|rest| wire::find(rest, 1)).map(wire::text);
    match words {
        Some(words) => format!("{name} ({words})"),
        None => name,
    }
}
