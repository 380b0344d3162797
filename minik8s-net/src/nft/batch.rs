//! One transaction: tables, chains, sets, elements and rules that the kernel takes together or not at all.

use super::expr::{Data, Expr, Value, value};
use super::wire::{F_APPEND, F_CREATE, FAMILY_IPV4, Messages, NFTABLES};

const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

/// Message numbers of nftables.
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DEL_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DEL_ELEMENT: u16 = 14;

const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const EVAL: u32 = 0x20;

/// What verdict maps have for values.
const VERDICT_TYPE: u32 = 0xffff_ff00;

/// Elements of one message: their nest is counted in 16 bits.
const CHUNK: usize = 800;

/// Where a chain hangs in the kernel's way of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BaseChain {
    pub(crate) kind: &'static str,
    pub(crate) hook: u32,
    pub(crate) priority: i32,
}

/// A rule, and the note `nft list` shows with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) exprs: Vec<Expr>,
    pub(crate) comment: Option<String>,
}

/// A named set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetSpec {
    pub(crate) name: String,
    pub(crate) key_type: u32,
    pub(crate) key_len: u32,
    pub(crate) data: Data,
    /// Packets put elements in, which say how long they stay.
    pub(crate) by_packets: bool,
}

impl SetSpec {
    /// One whose elements we put in.
    pub(crate) fn new(name: &str, key_type: u32, key_len: u32, data: Data) -> Self {
        Self { name: name.to_owned(), key_type, key_len, data, by_packets: false }
    }
}

/// A transaction in the making.
#[derive(Debug)]
pub(crate) struct Batch {
    out: Messages,
    table: String,
    sets: u32,
    changes: usize,
}

impl Batch {
    /// Changes to `table`. With a generation, the kernel refuses where anybody changed any rules since.
    pub(crate) fn new(table: &str, generation: Option<u32>) -> Self {
        let mut out = Messages::default();
        out.begin(BEGIN, 0, 0, NFTABLES);
        if let Some(generation) = generation {
            out.u32(1, generation);
        }
        out.end();
        Self { out, table: table.to_owned(), sets: 0, changes: 0 }
    }

    /// The bytes to send, and the sequence number whose answer tells that all went well. `None` where nothing changes.
    pub(crate) fn finish(mut self) -> Option<(Vec<u8>, u32)> {
        if self.changes == 0 {
            return None;
        }
        self.out.want_ack();
        let last = self.out.sequence();
        self.out.begin(END, 0, 0, NFTABLES);
        self.out.end();
        Some((self.out.bytes, last))
    }

    fn begin(&mut self, kind: u16, flags: u16) {
        self.changes += 1;
        self.out.begin((NFTABLES << 8) | kind, flags, FAMILY_IPV4, 0);
        let table = std::mem::take(&mut self.table);
        self.out.text(1, &table);
        self.table = table;
    }

    pub(crate) fn add_table(&mut self) {
        self.begin(NEW_TABLE, F_CREATE);
        self.out.end();
    }

    pub(crate) fn delete_table(&mut self) {
        self.begin(DEL_TABLE, 0);
        self.out.end();
    }

    pub(crate) fn add_chain(&mut self, name: &str, base: Option<BaseChain>) {
        self.begin(NEW_CHAIN, F_CREATE);
        self.out.text(3, name);
        if let Some(base) = base {
            let hook = self.out.open(4);
            self.out.u32(1, base.hook);
            self.out.u32(2, base.priority.cast_unsigned());
            self.out.close(hook);
            self.out.text(7, base.kind);
        }
        self.out.end();
    }

    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.begin(DEL_CHAIN, 0);
        self.out.text(3, name);
        self.out.end();
    }

    /// Removes the rules of a chain.
    pub(crate) fn flush_chain(&mut self, name: &str) {
        self.begin(DEL_RULE, 0);
        self.out.text(2, name);
        self.out.end();
    }

    /// Appends a rule.
    pub(crate) fn add_rule(&mut self, chain: &str, rule: &Rule) {
        self.begin(NEW_RULE, F_CREATE | F_APPEND);
        self.out.text(2, chain);
        let list = self.out.open(4);
        rule.exprs.iter().for_each(|expr| expr.encode(&mut self.out));
        self.out.close(list);
        if let Some(comment) = &rule.comment {
            self.out.raw(7, &user_text(comment));
        }
        self.out.end();
    }

    fn data_type(&mut self, data: &Data) {
        match data {
            Data::None => {}
            Data::Verdict => self.out.u32(6, VERDICT_TYPE),
            Data::Value(kind, len) => {
                self.out.u32(6, *kind);
                self.out.u32(7, *len);
            }
        }
    }

    pub(crate) fn add_set(&mut self, set: &SetSpec) {
        self.sets += 1;
        let id = self.sets;
        self.begin(NEW_SET, F_CREATE);
        self.out.text(2, &set.name);
        self.out.u32(3, map_flag(&set.data) | if set.by_packets { TIMEOUT | EVAL } else { 0 });
        self.out.u32(4, set.key_type);
        self.out.u32(5, set.key_len);
        self.data_type(&set.data);
        if set.by_packets {
            let size = self.out.open(9);
            self.out.u32(1, 65_535);
            self.out.close(size);
        }
        self.out.u32(10, id);
        self.out.end();
    }

    pub(crate) fn delete_set(&mut self, name: &str) {
        self.begin(DEL_SET, 0);
        self.out.text(2, name);
        self.out.end();
    }

    pub(crate) fn add_elements(&mut self, set: &str, elements: &[(Vec<u8>, Value)]) {
        self.elements(NEW_ELEMENT, set, elements);
    }

    pub(crate) fn delete_elements(&mut self, set: &str, keys: &[(Vec<u8>, Value)]) {
        self.elements(DEL_ELEMENT, set, keys);
    }

    fn elements(&mut self, kind: u16, set: &str, elements: &[(Vec<u8>, Value)]) {
        for chunk in elements.chunks(CHUNK) {
            self.begin(kind, if kind == NEW_ELEMENT { F_CREATE } else { 0 });
            self.out.text(2, set);
            let list = self.out.open(3);
            for (key, data) in chunk {
                self.element(key, data);
            }
            self.out.close(list);
            self.out.end();
        }
    }

    fn element(&mut self, key: &[u8], data: &Value) {
        let element = self.out.open(1);
        value(&mut self.out, 1, key);
        match data {
            Value::None => {}
            Value::Bytes(bytes) => value(&mut self.out, 2, bytes),
            Value::Verdict(verdict) => {
                let nest = self.out.open(2);
                verdict.encode(&mut self.out);
                self.out.close(nest);
            }
        }
        self.out.close(element);
    }
}

fn map_flag(data: &Data) -> u32 {
    if *data == Data::None { 0 } else { MAP }
}

/// A comment in the layout of nft's own notes: kind, length, text.
fn user_text(comment: &str) -> Vec<u8> {
    let text: Vec<u8> = comment.bytes().take(200).chain([0]).collect();
    [0, text.len() as u8].into_iter().chain(text).collect()
}
