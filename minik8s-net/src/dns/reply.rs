//! From the bytes of a question to the bytes of an answer: what is malformed, what is too long, what is ours.

use super::zone::{Answer, Zone};
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use std::net::IpAddr;

/// The longest answer by UDP: what passes any link unfragmented.
const UDP_MAX: u16 = 1232;
/// The longest where the question does not say otherwise.
const UDP_PLAIN: u16 = 512;

/// How a question came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What to do about a question.
#[derive(Debug)]
pub(super) enum Next {
    /// Not a question; answering could go on for ever.
    Ignore,
    Answer(Vec<u8>),
    /// Not of this cluster.
    Forward(Box<Message>),
    /// Answer with an alias, and with what another server says of its target.
    Follow(Box<Message>, Name),
}

/// Decides about the bytes of a question.
pub(super) fn handle(zone: &Zone, peer: IpAddr, bytes: &[u8], transport: Transport) -> Next {
    let question = match Message::from_vec(bytes) {
        Ok(question) => question,
        Err(_) => return malformed(bytes),
    };
    if question.metadata.message_type == MessageType::Response {
        return Next::Ignore;
    }
    let code = match &question.queries[..] {
        _ if question.metadata.op_code != OpCode::Query => Some(ResponseCode::NotImp),
        _ if question.edns.as_ref().is_some_and(|edns| edns.version() > 0) => Some(ResponseCode::BADVERS),
        [query] if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) => Some(ResponseCode::Refused),
        [query] if query.query_class() != DNSClass::IN => Some(ResponseCode::Refused),
        [_] => None,
        _ => Some(ResponseCode::FormErr),
    };
    match code {
        Some(code) => Next::Answer(failure(&question, code, transport)),
        None => look_up(zone, peer, question, transport),
    }
}

fn look_up(zone: &Zone, peer: IpAddr, question: Message, transport: Transport) -> Next {
    let Some(query) = question.queries.first() else { return Next::Ignore };
    let (name, kind) = (query.name().clone(), query.query_type());
    let mut answer = blank(&question);
    answer.metadata.authoritative = true;
    match zone.answer(peer, &name, kind) {
        Answer::Elsewhere => return Next::Forward(Box::new(question)),
        Answer::NotYet => return Next::Answer(failure(&question, ResponseCode::ServFail, transport)),
        Answer::NoName => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.add_authority(zone.authority());
        }
        Answer::Alias(target) => {
            answer.add_answer(Zone::alias(&name, &target));
            if kind != RecordType::CNAME {
                return match zone.answer(peer, &target, kind) {
                    Answer::Elsewhere => Next::Follow(Box::new(question), target),
                    Answer::Records { answers, .. } => {
                        answer.add_answers(answers);
                        Next::Answer(encode(answer, &question, transport))
                    }
                    _ => Next::Answer(encode(answer, &question, transport)),
                };
            }
        }
        Answer::Records { mut answers, additionals } => {
            if answers.is_empty() {
                answer.add_authority(zone.authority());
            } else {
                let first = usize::from(rand::random::<u16>()) % answers.len();
                answers.rotate_left(first);
            }
            answer.add_answers(answers);
            answer.add_additionals(additionals);
        }
    }
    Next::Answer(encode(answer, &question, transport))
}

/// An alias together with what another server said of its target.
pub(super) fn follow(question: &Message, target: &Name, found: Option<Message>, transport: Transport) -> Vec<u8> {
    let mut answer = blank(question);
    let Some(found) = found else { return failure(question, ResponseCode::ServFail, transport) };
    if let Some(query) = question.queries.first() {
        answer.add_answer(Zone::alias(query.name(), target));
    }
    answer.metadata.response_code = found.metadata.response_code;
    answer.metadata.truncation |= found.metadata.truncation;
    answer.add_answers(found.answers);
    answer.add_authorities(found.authorities);
    encode(answer, question, transport)
}

/// An answer that says only why there is none.
pub(super) fn failure(question: &Message, code: ResponseCode, transport: Transport) -> Vec<u8> {
    let mut answer = blank(question);
    answer.metadata.response_code = code;
    encode(answer, question, transport)
}

/// Whether bytes answer a question: same number, same words.
pub(super) fn answers(question: &Message, id: u16, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let matches = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == id
        && answer.queries == question.queries;
    matches.then_some(answer)
}

fn blank(question: &Message) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&question.metadata);
    answer.metadata.recursion_available = true;
    answer.add_queries(question.queries.iter().cloned());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX).set_version(0);
        answer.set_edns(edns);
    }
    answer
}

/// Encodes an answer in what space there is: first without what was not asked for, then saying that it is cut.
fn encode(mut answer: Message, question: &Message, transport: Transport) -> Vec<u8> {
    let room = match (&question.edns, transport) {
        (_, Transport::Tcp) => usize::from(u16::MAX),
        (Some(edns), _) => usize::from(edns.max_payload().clamp(UDP_PLAIN, UDP_MAX)),
        (None, _) => usize::from(UDP_PLAIN),
    };
    let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= room);
    if let Some(bytes) = fits(&answer) {
        return bytes;
    }
    answer.additionals.clear();
    if let Some(bytes) = fits(&answer) {
        return bytes;
    }
    answer.metadata.truncation = true;
    answer.authorities.clear();
    let all: Vec<Record> = std::mem::take(&mut answer.answers);
    let mut kept = all.len();
    while kept > 0 {
        kept /= 2;
        answer.answers = all[..kept].to_vec();
        if let Some(bytes) = fits(&answer) {
            return bytes;
        }
    }
    answer.to_vec().unwrap_or_default()
}

/// What cannot be read is answered as far as its number can be.
fn malformed(bytes: &[u8]) -> Next {
    let [high, low, flags, ..] = bytes else { return Next::Ignore };
    if bytes.len() < 12 || flags & 0x80 != 0 {
        return Next::Ignore;
    }
    let answer = Message::error_msg(u16::from_be_bytes([*high, *low]), OpCode::Query, ResponseCode::FormErr);
    answer.to_vec().map_or(Next::Ignore, Next::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use minik8s_core::network::{Endpoint, ServiceEntry, ServicePortEntry, ServiceTable};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A zone with one service without address, of many endpoints.
    fn zone(endpoints: u8) -> Zone {
        let endpoint = |i: u8| Endpoint::new(Ipv4Addr::new(10, 244, 1, i), 80);
        let port = ServicePortEntry {
            name: "http".into(),
            port: 80,
            endpoints: (0..endpoints).map(endpoint).collect(),
            ..ServicePortEntry::default()
        };
        let entry =
            ServiceEntry { namespace: "d".into(), name: "many".into(), ports: vec![port], ..ServiceEntry::default() };
        let services = [(("d".to_owned(), "many".to_owned()), Arc::new(entry))].into();
        Zone::new("cluster.local", Ipv4Addr::LOCALHOST, Vec::new()).with(Arc::new(ServiceTable { services }))
    }

    fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.metadata.recursion_desired = true;
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message
    }

    fn ask(zone: &Zone, question: &Message, transport: Transport) -> (Message, usize) {
        match handle(zone, PEER, &question.to_vec().unwrap(), transport) {
            Next::Answer(bytes) => (Message::from_vec(&bytes).unwrap(), bytes.len()),
            other => panic!("no answer: {other:?}"),
        }
    }

    #[test]
    fn long_answers_are_cut_to_what_the_client_takes() {
        let zone = zone(200);
        let name = "many.d.svc.cluster.local.";
        for (payload, room) in [(None, 512), (Some(100), 512), (Some(1232), 1232), (Some(65000), 1232)] {
            let (answer, size) = ask(&zone, &question(name, RecordType::A, payload), Transport::Udp);
            assert!(answer.metadata.truncation && size <= room && !answer.answers.is_empty(), "{payload:?}: {size}");
        }
        let (answer, _) = ask(&zone, &question(name, RecordType::A, None), Transport::Tcp);
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 200);
    }

    #[test]
    fn what_was_not_asked_for_goes_first() {
        let zone = zone(7);
        let question = question("_http._tcp.many.d.svc.cluster.local.", RecordType::SRV, None);
        let (answer, size) = ask(&zone, &question, Transport::Udp);
        assert!(!answer.metadata.truncation && size <= 512);
        assert_eq!((answer.answers.len(), answer.additionals.len()), (7, 0));
    }

    #[test]
    fn answers_keep_spelling_number_and_flags() {
        let question = question("MaNy.d.svc.cluster.local.", RecordType::A, Some(1232));
        let (answer, _) = ask(&zone(1), &question, Transport::Udp);
        assert_eq!(answer.metadata.id, question.metadata.id);
        assert!(answer.queries[0].name().eq_case(question.queries[0].name()));
        assert!(answer.answers[0].name.eq_case(question.queries[0].name()));
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available && answer.edns.is_some());
    }

    #[test]
    fn no_is_said_with_an_authority() {
        for (name, code) in
            [("none.d.svc.cluster.local.", ResponseCode::NXDomain), ("d.svc.cluster.local.", ResponseCode::NoError)]
        {
            let (answer, _) = ask(&zone(1), &question(name, RecordType::A, None), Transport::Udp);
            assert_eq!(answer.metadata.response_code, code, "{name}");
            assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        }
    }

    #[test]
    fn what_another_server_says_of_an_alias_is_passed_on() {
        let asked = question("alias.d.svc.cluster.local.", RecordType::A, None);
        let target = Name::from_ascii("example.org.").unwrap();
        let mut found = Message::new(7, MessageType::Response, OpCode::Query);
        found.metadata.response_code = ResponseCode::NXDomain;
        found.metadata.truncation = true;
        found.add_authority(zone(1).authority());
        let answer = Message::from_vec(&follow(&asked, &target, Some(found), Transport::Udp)).unwrap();
        assert_eq!((answer.metadata.response_code, answer.metadata.truncation), (ResponseCode::NXDomain, true));
        assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 1));
        assert_eq!(answer.metadata.id, asked.metadata.id);
    }

    #[test]
    fn odd_questions_get_their_codes() {
        let base = question("many.d.svc.cluster.local.", RecordType::A, Some(512));
        let code = |message: &Message| ask(&zone(1), message, Transport::Udp).0.metadata.response_code;
        let mut update = base.clone();
        update.metadata.op_code = OpCode::Notify;
        assert_eq!(code(&update), ResponseCode::NotImp);
        let mut two = base.clone();
        two.add_query(base.queries[0].clone());
        assert_eq!(code(&two), ResponseCode::FormErr);
        assert_eq!(code(&question("cluster.local.", RecordType::AXFR, None)), ResponseCode::Refused);
        let mut answer = base.clone();
        answer.metadata.message_type = MessageType::Response;
        assert!(matches!(handle(&zone(1), PEER, &answer.to_vec().unwrap(), Transport::Udp), Next::Ignore));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            handle(&zone(1), PEER, &bytes, Transport::Udp);
        }

        #[test]
        fn damaged_questions_are_survived(at in 0usize..60, byte in any::<u8>()) {
            let mut bytes = question("many.d.svc.cluster.local.", RecordType::A, Some(1232)).to_vec().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            handle(&zone(1), PEER, &bytes, Transport::Udp);
        }
    }
}
