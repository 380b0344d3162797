//! Addresses and node ports: those a writer asks for, where they are free, and others where it does not ask. What is
//! chosen here is claimed by the commit; two writers who choose the same do not both succeed.

use super::{ADDRESSES, HEADLESS, NODE_PORTS, has_node_ports};
use crate::api::{ApiError, ApiResult, Reason};
use crate::server::kinds::util::{items, items_mut, number, set, set_default, text, unset};
use crate::server::{Claim, FieldErrors, WriteContext};
use serde_json::{Value, json};
use std::net::IpAddr;

/// How many random places are tried before all are.
const DRAWS: u32 = 64;

pub(super) async fn allocate(
    new: &mut Value,
    old: Option<&Value>,
    ctx: &dyn WriteContext,
    errors: &mut FieldErrors,
) -> ApiResult<()> {
    let held = old.and_then(|o| o.get("spec")).cloned().unwrap_or(Value::Null);
    let Some(spec) = new.get_mut("spec").filter(|s| s.is_object()) else { return Ok(()) };
    if text(spec, "/type") == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            unset(spec, field);
        }
        return Ok(());
    }
    address(spec, &held, ctx, errors).await?;
    if has_node_ports(spec) {
        node_ports(spec, &held, ctx, errors).await?;
    } else if has_node_ports(&held) {
        // Ports that the old type needed are given back.
        for port in items_mut(spec, "ports") {
            unset(port, "nodePort");
        }
    }
    Ok(())
}

async fn address(spec: &mut Value, held: &Value, ctx: &dyn WriteContext, errors: &mut FieldErrors) -> ApiResult<()> {
    let first = items(spec, "/clusterIPs").next().and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut asked = text(spec, "/clusterIP").to_owned();
    if asked.is_empty() {
        asked = first;
    }
    let range = ctx.settings().service_cidr;
    let address = if asked.is_empty() {
        free_address(ctx).await?.to_string()
    } else if asked == HEADLESS || asked == text(held, "/clusterIP") {
        asked
    } else {
        check_address(&asked, ctx, errors).await?;
        asked
    };
    set(spec, "clusterIPs", json!([address]));
    set(spec, "clusterIP", address.into());
    let family = if range.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    set_default(spec, "ipFamilies", json!([family]));
    set_default(spec, "ipFamilyPolicy", "SingleStack");
    Ok(())
}

fn claim(space: &'static str, value: String) -> Claim {
    Claim { space, value, field: String::new() }
}

async fn check_address(asked: &str, ctx: &dyn WriteContext, errors: &mut FieldErrors) -> ApiResult<()> {
    let range = ctx.settings().service_cidr;
    let mut refuse = |why: String| errors.invalid("spec.clusterIPs", &json!([asked]), &why);
    match asked.parse::<IpAddr>() {
        Err(_) => refuse("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()),
        Ok(ip) if !range.contains(&ip) => refuse(format!(
            "failed to allocate IP {asked}: the provided IP is not in the valid range. The range of valid IPs is {range}"
        )),
        Ok(_) if !ctx.is_free(&claim(ADDRESSES, asked.to_owned())).await? => {
            refuse(format!("failed to allocate IP {asked}: provided IP is already allocated"));
        }
        Ok(_) => {}
    }
    Ok(())
}

/// The address at a place of the range.
fn nth(base: IpAddr, offset: u128) -> IpAddr {
    match base {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip).wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX))).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip).wrapping_add(offset)).into()),
    }
}

/// A free address. The first is the network's, the second the API server's own service's, the last the broadcast.
async fn free_address(ctx: &dyn WriteContext) -> ApiResult<IpAddr> {
    let range = ctx.settings().service_cidr;
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(32);
    let usable = (1u64 << bits).saturating_sub(3);
    for draw in 0..DRAWS {
        let address = nth(range.network(), u128::from(2 + ctx.random(usable)));
        if usable > 0 && ctx.is_free(&claim(ADDRESSES, address.to_string())).await? {
            return Ok(address);
        }
        tracing::trace!(draw, %address, "address is taken");
    }
    for offset in 0..usable {
        let address = nth(range.network(), u128::from(2 + offset));
        if ctx.is_free(&claim(ADDRESSES, address.to_string())).await? {
            return Ok(address);
        }
    }
    let why = format!("failed to allocate a cluster IP: range {range} is full");
    Err(ApiError::new(Reason::InternalError, why))
}

async fn node_ports(spec: &mut Value, held: &Value, ctx: &dyn WriteContext, errors: &mut FieldErrors) -> ApiResult<()> {
    if spec.get("allocateLoadBalancerNodePorts") == Some(&Value::Bool(false)) && text(spec, "/type") == "LoadBalancer" {
        return Ok(());
    }
    let held: Vec<i64> = items(held, "/ports").filter_map(|p| number(p, "/nodePort")).collect();
    let asked: Vec<Option<i64>> = items(spec, "/ports").map(|p| number(p, "/nodePort").filter(|n| *n != 0)).collect();
    let mut taken: Vec<i64> = asked.iter().flatten().copied().collect();
    let mut chosen = Vec::new();
    for (index, wanted) in asked.into_iter().enumerate() {
        chosen.push(match wanted {
            Some(port) => {
                if !held.contains(&port) {
                    check_port(index, port, ctx, errors).await?;
                }
                port
            }
            None => free_port(&mut taken, ctx).await?,
        });
    }
    for (port, chosen) in items_mut(spec, "ports").zip(chosen) {
        set(port, "nodePort", chosen.into());
    }
    Ok(())
}

async fn check_port(index: usize, port: i64, ctx: &dyn WriteContext, errors: &mut FieldErrors) -> ApiResult<()> {
    let (low, high) = ctx.settings().node_ports;
    let at = format!("spec.ports[{index}].nodePort");
    if !(i64::from(low)..=i64::from(high)).contains(&port) {
        let why = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
        errors.invalid(at, &port.into(), &why);
    } else if !ctx.is_free(&claim(NODE_PORTS, port.to_string())).await? {
        errors.invalid(at, &port.into(), "provided port is already allocated");
    }
    Ok(())
}

async fn free_port(taken: &mut Vec<i64>, ctx: &dyn WriteContext) -> ApiResult<i64> {
    let (low, high) = ctx.settings().node_ports;
    let count = u64::from(high.saturating_sub(low)) + 1;
    let start = ctx.random(count);
    for step in 0..count {
        let port = i64::from(low) + i64::try_from((start + step) % count).unwrap_or_default();
        if !taken.contains(&port) && ctx.is_free(&claim(NODE_PORTS, port.to_string())).await? {
            taken.push(port);
            return Ok(port);
        }
    }
    Err(ApiError::new(Reason::InternalError, format!("failed to allocate a node port: range {low}-{high} is full")))
}
