//! Graphics processors of containers that ask for some: theirs alone, from their start until their pod has ended.

use crate::devices::{GPU, Grant};
use crate::node::context::Context;
use crate::node::images::StartError;
use crate::node::pod::{self, Role};
use crate::runtime::ContainerSpec;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::path::PathBuf;

fn config(message: impl Into<String>) -> StartError {
    StartError::new("CreateContainerConfigError", message)
}

/// How many a container asks for; what it may have is what it asks for.
fn wanted(container: &Container) -> usize {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let amount = limits.and_then(|limits| limits.get(GPU)?.0.parse::<crate::api::Quantity>().ok());
    amount.map_or(0, |amount| usize::try_from(amount.value()).unwrap_or(0))
}

/// Holders are directories of the pod: what they have is free when it is gone, whoever was killed meanwhile.
fn home(context: &Context, uid: &str) -> PathBuf {
    context.roots(uid).pod.join("devices")
}

/// Gives a container what it asks for; each of its lives has the same devices.
pub(super) fn give(
    context: &Context,
    pod: &Pod,
    container: &Container,
    spec: &mut ContainerSpec,
) -> Result<(), StartError> {
    let count = wanted(container);
    if count == 0 {
        return Ok(());
    }
    let mut grant = take(context, pod, container, count)?;
    grant.beside(&spec.mounts, &spec.env);
    spec.devices = grant.devices;
    spec.mounts.extend(grant.mounts);
    spec.env.extend(grant.env);
    spec.paths = grant.paths;
    Ok(())
}

fn take(context: &Context, pod: &Pod, container: &Container, count: usize) -> Result<Grant, StartError> {
    let Some(gpus) = &context.config.gpus else {
        return Err(config(format!("it asks for {GPU}, and this node has none")));
    };
    let failed = |error: std::io::Error| config(format!("the table of graphics processors cannot be used: {error}"));
    let home = home(context, pod::uid(pod));
    // An init container has ended when another container starts: the scheduler counts what it had once.
    let before = pod::containers(pod).filter(|(role, other)| *role == Role::Init && other.name != container.name);
    for (_, other) in before {
        gpus.table.release(&home.join(&other.name)).map_err(failed)?;
    }
    let holder = home.join(&container.name);
    std::fs::create_dir_all(&holder).map_err(failed)?;
    match gpus.table.take(&holder, &gpus.numbers, count).map_err(failed)? {
        Some(numbers) => Ok(gpus.grant(&numbers)),
        None => Err(config(format!(
            "it asks for {count} graphics processors, and not so many of this machine's {} are free: others, such as jobs \
             that run beside pods, have them",
            gpus.numbers.len()
        ))),
    }
}

/// Takes back what a pod has.
pub(super) fn take_back(context: &Context, uid: &str) -> std::io::Result<()> {
    let Some(gpus) = &context.config.gpus else { return Ok(()) };
    let had = match std::fs::read_dir(home(context, uid)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        had => had?,
    };
    for entry in had {
        gpus.table.release(&entry?.path())?;
    }
    Ok(())
}
