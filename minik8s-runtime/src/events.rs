//! containerd's events, as the agent wants them. Exits are written down here, also while nobody listens.

use crate::containers::Record;
use crate::runtime::Inner;
use containerd_client::events::{ContainerDelete, TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1 as api;
use containerd_client::types::Envelope;
use containerd_client::types::v1::{Process, Status};
use minik8s_core::runtime::RuntimeEvent;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause before subscribing again, so that a containerd that is down is not hammered.
const RETRY: Duration = Duration::from_millis(250);

/// By then containerd has taken in a subscription that it was sent before it answered another call.
const SUBSCRIBED: Duration = Duration::from_millis(20);

/// What an event says.
#[derive(Debug, PartialEq)]
enum News {
    Started(String),
    Exited(String, Process),
    OutOfMemory(String),
    Removed(String),
}

/// Subscribes, and after an outage again, until told to stop.
pub(crate) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    let mut first = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = subscription(&inner, &mut first) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn subscription(inner: &Arc<Inner>, first: &mut bool) {
    let namespace = &inner.config.namespace;
    let filters = ["/tasks/start", "/tasks/exit", "/tasks/oom", "/containers/delete"];
    let filters = filters.map(|topic| format!("namespace=={namespace},topic=={topic:?}")).to_vec();
    // containerd answers a subscription only with its first event, so whether it is back shows on another call.
    let mut events = inner.connection.events();
    let subscribe = async { events.subscribe(api::SubscribeRequest { filters }).await.map_err(drop) };
    let resync = async {
        if !std::mem::take(first) {
            // Where only this call meets the outage, the other would wait for its first event, and nobody be told.
            inner.connection.version().version(()).await.map_err(drop)?;
            tokio::time::sleep(SUBSCRIBED).await;
            // Whatever ended while nobody listened is settled by the list that this makes the agent do.
            let _ = inner.events.send(RuntimeEvent::Resync);
        }
        Ok(())
    };
    let Ok((stream, ())) = tokio::try_join!(subscribe, resync) else { return };
    let mut stream = stream.into_inner();
    while let Ok(Some(envelope)) = stream.message().await {
        if let Some(news) = read(&envelope) {
            tokio::spawn(report(inner.clone(), news));
        }
    }
}

fn read(envelope: &Envelope) -> Option<News> {
    let bytes = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        "/tasks/start" => Some(News::Started(TaskStart::decode(bytes).ok()?.container_id)),
        "/tasks/oom" => Some(News::OutOfMemory(TaskOom::decode(bytes).ok()?.container_id)),
        "/containers/delete" => Some(News::Removed(ContainerDelete::decode(bytes).ok()?.id)),
        "/tasks/exit" => {
            let exit = TaskExit::decode(bytes).ok()?;
            // Commands beside the main process have ids of their own.
            (exit.id == exit.container_id).then(|| {
                let process = Process {
                    status: Status::Stopped as i32,
                    exit_status: exit.exit_status,
                    exited_at: exit.exited_at,
                    ..Process::default()
                };
                News::Exited(exit.container_id, process)
            })
        }
        _ => None,
    }
}

async fn report(inner: Arc<Inner>, news: News) {
    let (cid, record) = match &news {
        News::Removed(cid) => (cid, inner.records.lock().remove(cid)),
        News::Started(cid) | News::Exited(cid, _) | News::OutOfMemory(cid) => {
            (cid, inner.record(cid).await.ok().flatten())
        }
    };
    if let News::Exited(cid, process) = &news
        && let Err(error) = inner.settle(cid, Some(process)).await
    {
        tracing::warn!(container = %cid, %error, "exit not settled, the next list will");
    }
    let record: Option<Arc<Record>> = record.or_else(|| inner.files(cid).record().map(Arc::new));
    if let Some(record) = record {
        let _ = inner.events.send(RuntimeEvent::Container { sandbox: record.sandbox.clone(), id: record.id.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Any;

    fn envelope(topic: &str, event: &impl Message) -> Envelope {
        let event = Any { type_url: String::new(), value: event.encode_to_vec() };
        Envelope { topic: topic.into(), event: Some(event), ..Envelope::default() }
    }

    #[test]
    fn only_the_main_process_counts_as_the_container() {
        let exit =
            |id: &str| TaskExit { container_id: "c".into(), id: id.into(), exit_status: 3, ..TaskExit::default() };
        assert!(
            matches!(read(&envelope("/tasks/exit", &exit("c"))), Some(News::Exited(c, p)) if c == "c" && p.exit_status == 3)
        );
        assert_eq!(read(&envelope("/tasks/exit", &exit("exec-1"))), None);
        let gone = ContainerDelete { id: "c".into() };
        assert_eq!(read(&envelope("/containers/delete", &gone)), Some(News::Removed("c".into())));
        assert_eq!(read(&envelope("/snapshot/prepare", &gone)), None);
    }
}
