//! Which versions go together: a node may be as old as it likes, and never newer than its server.

use super::JoinError;

/// The numbers of `v1.33.0+minik8s-0.1.0`: of Kubernetes, and of this project where it is said.
fn numbers(version: &str) -> (Vec<u64>, Vec<u64>) {
    let (kubernetes, own) = version.split_once("+minik8s-").unwrap_or((version, ""));
    let parts = |text: &str| {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        plain.trim_start_matches('v').split('.').map_while(|part| part.parse().ok()).take(2).collect()
    };
    (parts(kubernetes), parts(own))
}

/// Refuses an agent that is newer than its server. Patches do not count.
pub(super) fn check(agent: &str, server: &str) -> Result<(), JoinError> {
    if numbers(agent) > numbers(server) {
        return Err(JoinError::NewerThanServer { agent: agent.to_owned(), server: server.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_never_newer_than_its_server() {
        let table = [
            ("v1.33.0+minik8s-0.1.0", "v1.33.0+minik8s-0.1.0", true),
            ("v1.33.9+minik8s-0.1.9", "v1.33.0+minik8s-0.1.0", true),
            ("v1.33.0+minik8s-0.2.0", "v1.33.0+minik8s-0.1.0", false),
            ("v1.34.0+minik8s-0.1.0", "v1.33.0+minik8s-0.1.0", false),
            ("v1.32.0+minik8s-0.2.0", "v1.33.0+minik8s-0.1.0", true),
            ("v2.0.0+minik8s-0.1.0", "v1.33.0+minik8s-0.1.0", false),
        ];
        for (agent, server, fits) in table {
            assert_eq!(check(agent, server).is_ok(), fits, "{agent} to {server}");
        }
    }
}
