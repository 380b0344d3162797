//! Who stays with one endpoint: by a cookie that names it, or by the value of a header.

use super::answers::Refusal;
use crate::config::fnv;
use crate::gateway::backend::Lease;
use crate::gateway::table::{Plan, To};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use minik8s_core::routing::Sticky;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;

/// Where a request goes.
pub(super) struct Chosen {
    /// Which of the plan's targets.
    pub(super) target: usize,
    /// The endpoint, where the session has one.
    pub(super) lease: Option<Lease>,
    /// To be set, where the session is new.
    pub(super) cookie: Option<Cookie>,
}

/// A cookie that names an endpoint.
pub(super) struct Cookie {
    name: String,
    seconds: Option<u64>,
    key: String,
}

impl Cookie {
    pub(super) fn set(&self, headers: &mut HeaderMap, address: SocketAddr) {
        let age = self.seconds.map(|s| format!("; Max-Age={s}")).unwrap_or_default();
        let text = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{age}", self.name, token(&self.key, address));
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(header::SET_COOKIE, value);
        }
    }
}

/// What a cookie says of an endpoint: without the key, nothing about its address, and nobody makes one up.
fn token(key: &str, address: SocketAddr) -> String {
    let hash = Sha256::digest(format!("minik8s session\0{key}\0{address}"));
    hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// The target and, for a session that has one, the endpoint.
pub(super) fn choose(plan: &Plan, headers: &HeaderMap) -> Result<Chosen, Refusal> {
    let mut cookie = None;
    match &plan.sticky {
        None => {}
        Some(Sticky::Cookie { name, seconds, key }) => {
            if let Some(chosen) = cookie_value(headers, name).and_then(|value| by_token(plan, key, &value)) {
                return Ok(chosen);
            }
            cookie = Some(Cookie { name: name.clone(), seconds: *seconds, key: key.clone() });
        }
        Some(Sticky::Header { name }) => {
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            if let Some(value) = name.and_then(|name| headers.get(name)) {
                return by_value(plan, value).ok_or_else(nowhere);
            }
        }
    }
    let target = plan.split.next().ok_or_else(nowhere)?;
    Ok(Chosen { target, lease: None, cookie })
}

fn nowhere() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the route has no backend with a weight above zero".into())
}

fn by_token(plan: &Plan, key: &str, value: &str) -> Option<Chosen> {
    let mut targets = plan.targets.iter().enumerate().filter(|(_, target)| target.weight > 0);
    targets.find_map(|(index, target)| {
        let To::Cluster { cluster, .. } = &target.to else { return None };
        let lease = cluster.find(|address| token(key, address) == value)?;
        Some(Chosen { target: index, lease: Some(lease), cookie: None })
    })
}

/// The same value has the same target, as weights say, and the same endpoint.
fn by_value(plan: &Plan, value: &HeaderValue) -> Option<Chosen> {
    let hash = |salt: &str| spread(fnv(value.as_bytes().iter().copied().chain([0]).chain(salt.bytes())));
    let total: u64 = plan.targets.iter().map(|target| u64::from(target.weight)).sum();
    let mut point = hash("target").checked_rem(total)?;
    let target = plan.targets.iter().position(|target| {
        let weight = u64::from(target.weight);
        let here = point < weight;
        point = point.saturating_sub(weight);
        here
    })?;
    let lease = match &plan.targets[target].to {
        To::Cluster { cluster, .. } => cluster.greatest(|address| hash(&address.to_string())),
        To::Nowhere { .. } => None,
    };
    Some(Chosen { target, lease, cookie: None })
}

/// The bits of a hash that differs in few, all over the number.
fn spread(hash: u64) -> u64 {
    let z = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn cookie_value(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
