//! `token`: what machines join with. Secrets are printed once, when they are made.

use crate::api::{Conn, is_not_found};
use crate::args::Token;
use crate::output::say;
use crate::output::{Rows, render};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use minik8s_core::api::human;
use minik8s_core::join::JoinToken;
use minik8s_core::server::auth::{TOKEN_PREFIX, TOKEN_TYPE, expiration};
use minik8s_core::server::tls::pin_of;
use serde_json::Value;

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

pub(crate) async fn run(conn: &Conn, command: &Token) -> Result<()> {
    match command {
        Token::Create { ttl, description, print_join_command } => {
            create(conn, ttl, description, *print_join_command).await
        }
        Token::List => list(conn).await,
        Token::Revoke { ids } => revoke(conn, ids).await,
    }
}

async fn create(conn: &Conn, ttl: &str, description: &str, whole: bool) -> Result<()> {
    let life = life(ttl)?;
    let ca = conn.ca.as_deref().context("the kubeconfig names no certificate authority: a token could not pin it")?;
    let token = JoinToken::generate(&pin_of(ca)?);
    let end = life.map(|life| Timestamp::now().saturating_add(life)).transpose()?;
    conn.post(SECRETS, &serde_json::to_value(token.secret(end, description))?).await?;
    if !whole {
        say(&token.reveal());
        return Ok(());
    }
    say(&format!("minik8s agent --server {} --token {}", server(conn).await?, token.reveal()));
    Ok(())
}

/// How long; `None` for ever.
fn life(text: &str) -> Result<Option<SignedDuration>> {
    let wrong = || format!("--ttl {text:?} is no duration such as 30m, 24h or 7d");
    if text == "0" {
        return Ok(None);
    }
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => bail!(wrong()),
    };
    let number: i64 = number.parse().with_context(wrong)?;
    match number.checked_mul(seconds).filter(|s| *s > 0) {
        Some(seconds) => Ok(Some(SignedDuration::from_secs(seconds))),
        None => bail!(wrong()),
    }
}

/// Where other machines reach the API: what its own Service leads to.
async fn server(conn: &Conn) -> Result<String> {
    let endpoints = conn.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
    let alone =
        "this cluster listens on loopback only, where no other machine reaches it: start it with `minik8s server`";
    let endpoints = match endpoints {
        Err(error) if is_not_found(&error) => bail!(alone),
        other => other?,
    };
    let address = endpoints.pointer("/subsets/0/addresses/0/ip").and_then(Value::as_str).context(alone)?;
    let port = endpoints.pointer("/subsets/0/ports/0/port").and_then(Value::as_u64).unwrap_or(6443);
    Ok(if address.contains(':') { format!("https://[{address}]:{port}") } else { format!("https://{address}:{port}") })
}

async fn list(conn: &Conn) -> Result<()> {
    let selector = TOKEN_TYPE.replace('/', "%2F");
    let found = conn.get(&format!("{SECRETS}?fieldSelector=type%3D{selector}")).await?;
    let tokens = found["items"].as_array().cloned().unwrap_or_default();
    if tokens.is_empty() {
        say("no tokens; `minik8s token create` makes one");
        return Ok(());
    }
    let now = Timestamp::now();
    let rows = tokens.iter().map(|token| row(token, now)).collect();
    let headings = ["ID", "TTL", "EXPIRES", "DESCRIPTION"].map(str::to_owned).to_vec();
    render(&Rows { headings, rows }, true).iter().for_each(|line| say(line));
    Ok(())
}

fn row(token: &Value, now: Timestamp) -> Vec<String> {
    let field = |name: &str| {
        let data = token["data"][name].as_str().unwrap_or_default();
        String::from_utf8(STANDARD.decode(data).unwrap_or_default()).unwrap_or_default()
    };
    let (left, end) = match expiration(token) {
        None => ("forever".to_owned(), "never".to_owned()),
        Some(end) if end <= now => ("expired".to_owned(), end.to_string()),
        Some(end) => (human::age(end.duration_since(now)), end.to_string()),
    };
    let description = match field("description") {
        text if text.is_empty() => "<none>".to_owned(),
        text => text,
    };
    vec![field("token-id"), left, end, description]
}

async fn revoke(conn: &Conn, ids: &[String]) -> Result<()> {
    for id in ids {
        let id = id.split('.').next().unwrap_or_default();
        let path = format!("{SECRETS}/{TOKEN_PREFIX}{id}");
        match conn.delete(&path, &serde_json::json!({})).await {
            Ok(_) => say(&format!("token {id} revoked")),
            Err(error) if is_not_found(&error) => {
                bail!("there is no token {id:?}; `minik8s token list` shows those there are")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let hours = |n| Some(SignedDuration::from_hours(n));
        assert_eq!(life("24h").unwrap(), hours(24));
        assert_eq!(life("7d").unwrap(), hours(168));
        assert_eq!(life("0").unwrap(), None);
        for wrong in ["", "h", "-1h", "0h", "5", "5 h", "9999999999999999d"] {
            assert!(life(wrong).is_err(), "{wrong}");
        }
    }
}
