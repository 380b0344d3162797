//! containerd's content store: blobs by digest.

use crate::config::hex;
use crate::connection::{Connection, Lease, Tolerate, unavailable};
use bytes::Bytes;
use containerd_client::services::v1 as api;
use futures::StreamExt;
use minik8s_core::runtime::{RuntimeError, RuntimeResult};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// What was being done when the other end of a copy failed.
pub(super) const READING: &str = "reading a layer";

/// Manifests and configurations beyond this size are not honest.
const MAX_SMALL: u64 = 8 << 20;

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// A blob to be stored.
pub(super) struct Blob<'a> {
    pub(super) digest: &'a str,
    pub(super) size: u64,
    pub(super) labels: Vec<(String, String)>,
}

impl Connection {
    /// True where the blob is here in full; then it stays as long as the lease.
    pub(super) async fn has_blob(&self, digest: &str, lease: &Lease) -> RuntimeResult<bool> {
        self.keep(lease, "content", digest).await?;
        let request = self.request(api::InfoRequest { digest: digest.to_owned() });
        let found = self.content().info(request).await.tolerate(Code::NotFound);
        Ok(found.map_err(unavailable("looking for content"))?.is_some())
    }

    /// Reads a small blob; `None` where it is not here.
    pub(super) async fn read_blob(&self, digest: &str) -> RuntimeResult<Option<Vec<u8>>> {
        let failed = unavailable("reading content");
        let request = self.request(api::ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
        let Some(mut stream) = self.content().read(request).await.tolerate(Code::NotFound).map_err(&failed)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        while let Some(part) = stream.next().await {
            match part {
                Ok(part) => bytes.extend_from_slice(&part.data),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(failed(status)),
            }
            if bytes.len() as u64 > MAX_SMALL {
                return Err(RuntimeError::Invalid(format!("content {digest} is larger than {MAX_SMALL} bytes")));
            }
        }
        Ok(Some(bytes))
    }

    /// Stores a small blob.
    pub(super) async fn write_blob(&self, bytes: Vec<u8>, blob: Blob<'_>, lease: &Lease) -> RuntimeResult<()> {
        let (sender, receiver) = mpsc::channel(1);
        let _ = sender.send(Ok(Bytes::from(bytes))).await;
        drop(sender);
        self.write_stream(receiver, blob, lease).await
    }

    /// Stores a blob from a stream of its bytes; containerd verifies size and digest before it becomes visible.
    pub(super) async fn write_stream(
        &self,
        bytes: mpsc::Receiver<std::io::Result<Bytes>>,
        blob: Blob<'_>,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        let reference = format!("minik8s-{}-{}", blob.digest, uuid::Uuid::new_v4().simple());
        let stored = self.write_ref(&reference, bytes, &blob, lease).await;
        if stored.is_err() {
            let _ = self.content().abort(self.request(api::AbortRequest { r#ref: reference })).await;
        }
        stored
    }

    async fn write_ref(
        &self,
        reference: &str,
        mut bytes: mpsc::Receiver<std::io::Result<Bytes>>,
        blob: &Blob<'_>,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        let (sender, receiver) = mpsc::channel::<api::WriteContentRequest>(4);
        let first = api::WriteContentRequest {
            r#ref: reference.to_owned(),
            total: i64::try_from(blob.size).unwrap_or(0),
            expected: blob.digest.to_owned(),
            labels: blob.labels.iter().cloned().collect(),
            ..Default::default()
        };
        let feed = async move {
            let mut offset = 0i64;
            let mut message = first;
            message.action = api::WriteAction::Write as i32;
            while let Some(part) = bytes.recv().await {
                let data = part?;
                let length = i64::try_from(data.len()).unwrap_or(0);
                let send = api::WriteContentRequest { data: data.to_vec(), offset, ..message.clone() };
                offset += length;
                if sender.send(send).await.is_err() {
                    return Ok(());
                }
            }
            message.action = api::WriteAction::Commit as i32;
            message.offset = offset;
            let _ = sender.send(message).await;
            std::io::Result::Ok(())
        };
        let request = self.leased(ReceiverStream::new(receiver), lease);
        let mut content = self.content();
        let answer = async {
            let mut answers = content.write(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<(), tonic::Status>(())
        };
        let (fed, answered) = tokio::join!(feed, answer);
        match answered {
            Err(status) if status.code() == Code::AlreadyExists => self.adopt(blob).await,
            Err(status) => Err(refused(blob.digest, &status)),
            Ok(()) => fed.map_err(|e| RuntimeError::Unavailable { operation: READING, cause: e.to_string() }),
        }
    }

    /// The blob is here already, perhaps from an image without our labels: they are added.
    async fn adopt(&self, blob: &Blob<'_>) -> RuntimeResult<()> {
        if blob.labels.is_empty() { Ok(()) } else { self.label_blob(blob.digest, &blob.labels).await }
    }

    pub(super) async fn label_blob(&self, digest: &str, labels: &[(String, String)]) -> RuntimeResult<()> {
        let paths = labels.iter().map(|(key, _)| format!("labels.{key}")).collect();
        let info =
            api::Info { digest: digest.to_owned(), labels: labels.iter().cloned().collect(), ..Default::default() };
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = self.request(api::UpdateRequest { info: Some(info), update_mask });
        self.content().update(request).await.map_err(unavailable("labelling content"))?;
        Ok(())
    }
}

/// containerd answers `FailedPrecondition` where digest or size differ from what was announced.
fn refused(digest: &str, status: &tonic::Status) -> RuntimeError {
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::OutOfRange => {
            RuntimeError::Invalid(format!("content does not match its digest {digest}: {}", status.message()))
        }
        _ => unavailable("storing content")(status.clone()),
    }
}
