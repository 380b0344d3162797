//! Whether the kernel still has what it was told. Rules are compared by chain, order and kind of expression, elements
//! by key and value.

use super::program::Program;
use crate::nft::Value;
use crate::nft::expr::Verdict;
use crate::nft::wire::{self, FAMILY_IPV4, NFTABLES};
use crate::nft::{NftError, NftSocket, Rule};
use std::collections::BTreeMap;

const GET_RULE: u16 = (NFTABLES << 8) | 7;
const GET_ELEMENT: u16 = (NFTABLES << 8) | 13;

/// Names of expressions of each rule of each chain.
type Shapes = BTreeMap<String, Vec<Vec<String>>>;

/// True where rules and elements are as `program` says.
pub(super) fn intact(socket: &mut NftSocket, program: &Program) -> Result<bool, NftError> {
    let table = &program.around().table;
    let wanted: Shapes =
        program.chains().map(|(name, rules)| (name, rules.iter().map(shape).collect::<Vec<_>>())).collect();
    match rules(socket, table) {
        Ok(found) if found == wanted => {}
        Err(error) if !error.is_missing() => return Err(error),
        _ => return Ok(false),
    }
    let wanted = program.elements();
    for set in super::base::sets() {
        let wanted = wanted.get(&*set.name).map(flat).unwrap_or_default();
        match elements(socket, table, &set.name) {
            Ok(found) if found == wanted => {}
            Err(error) if !error.is_missing() => return Err(error),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// True where the kernel has rules in the program's table, whatever they are.
pub(super) fn exists(socket: &mut NftSocket, program: &Program) -> Result<bool, NftError> {
    match rules(socket, &program.around().table) {
        Ok(found) => Ok(!found.is_empty()),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

fn shape(rule: &Rule) -> Vec<String> {
    rule.exprs.iter().map(|expr| expr.name().to_owned()).collect()
}

fn rules(socket: &mut NftSocket, table: &str) -> Result<Shapes, NftError> {
    let mut found = Shapes::new();
    let fill = |out: &mut wire::Messages| out.text(1, table);
    socket.dump(GET_RULE, FAMILY_IPV4, fill, |message| {
        let attributes = message.body.get(wire::NFGEN..).unwrap_or_default();
        let named = |kind| wire::find(attributes, kind).map(wire::text).unwrap_or_default();
        if named(1) == table {
            let exprs = wire::find(attributes, 4).unwrap_or_default();
            let names = wire::attributes(exprs).filter_map(|(_, expr)| wire::find(expr, 1)).map(wire::text);
            found.entry(named(2)).or_default().push(names.collect());
        }
    })?;
    Ok(found)
}

fn elements(socket: &mut NftSocket, table: &str, set: &str) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, NftError> {
    let mut found = BTreeMap::new();
    let fill = |out: &mut wire::Messages| {
        out.text(1, table);
        out.text(2, set);
    };
    socket.dump(GET_ELEMENT, FAMILY_IPV4, fill, |message| {
        let attributes = message.body.get(wire::NFGEN..).unwrap_or_default();
        for (_, element) in wire::attributes(wire::find(attributes, 3).unwrap_or_default()) {
            if let Some(key) = wire::find(element, 1).and_then(|key| wire::find(key, 1)) {
                found.insert(key.to_vec(), data(wire::find(element, 2).unwrap_or_default()));
            }
        }
    })?;
    Ok(found)
}

/// The bytes of a value, or the name of a verdict's chain.
fn data(value: &[u8]) -> Vec<u8> {
    let chain = || Some(wire::text(wire::find(wire::find(value, 2)?, 2)?).into_bytes());
    wire::find(value, 1).map(<[u8]>::to_vec).or_else(chain).unwrap_or_default()
}

fn flat(elements: &BTreeMap<Vec<u8>, Value>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let flat = |value: &Value| match value {
        Value::Bytes(bytes) => bytes.clone(),
        Value::Verdict(Verdict::Goto(chain) | Verdict::Jump(chain)) => chain.clone().into_bytes(),
        _ => Vec::new(),
    };
    elements.iter().map(|(key, value)| (key.clone(), flat(value))).collect()
}
