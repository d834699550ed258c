//! What is kept of a run when its pod is gone: outcome and end of the log, in a ConfigMap.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use kube::core::ObjectMeta;

use super::crd::TaskRun;
use super::objects::{identity, result_name};

/// The most that is kept, bytes: an object of a cluster is at most 1 MiB, keys and encoding included.
const MAX_BYTES: usize = 640 * 1024;

/// The key of the outcome.
const OUTCOME: &str = "outcome.json";

/// The key of the log.
const LOG: &str = "events.jsonl.gz";

/// The ConfigMap that keeps outcome and log of a run.
#[must_use]
pub fn build(run: &TaskRun, log: &[u8]) -> ConfigMap {
    let status = run.status.clone().unwrap_or_default();
    let outcome = status.outcome.as_ref().map(ToString::to_string);
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(result_name(run.name())),
            namespace: run.metadata.namespace.clone(),
            labels: Some(identity(run)),
            owner_references: run.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: outcome.map(|outcome| [(OUTCOME.to_owned(), outcome)].into()),
        binary_data: Some([(LOG.to_owned(), ByteString(compress(log)))].into()),
    }
}

/// The log that such a ConfigMap keeps.
#[must_use]
pub fn read_log(kept: &ConfigMap) -> Option<Vec<u8>> {
    let ByteString(bytes) = kept.binary_data.as_ref()?.get(LOG)?;
    let mut log = Vec::new();
    // The writer is bounded to what the reader of a stream keeps; so is this.
    GzDecoder::new(bytes.as_slice()).take(64 * 1024 * 1024).read_to_end(&mut log).ok()?;
    Some(log)
}

/// Compresses the end of a log, as much of it as fits, in whole lines.
fn compress(log: &[u8]) -> Vec<u8> {
    let mut from = 0;
    loop {
        let start = if from == 0 {
            0
        } else {
            log[from..].iter().position(|byte| *byte == b'\n').map_or(log.len(), |at| from + at + 1)
        };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory cannot fail.
        drop(encoder.write_all(&log[start..]));
        let bytes = encoder.finish().unwrap_or_default();
        if bytes.len() <= MAX_BYTES || start >= log.len() {
            return bytes;
        }
        // A little more than the share that is too much.
        let keep = (log.len() - start) as u64 * MAX_BYTES as u64 / bytes.len() as u64 * 9 / 10;
        from = log.len() - usize::try_from(keep).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::crd::TaskRunSpec;
    use orchestrator_contract::TaskSpec;

    fn run() -> TaskRun {
        let task =
            TaskSpec::from_json(include_str!("../../../supervisor/contract/samples/task-v1.json")).unwrap();
        TaskRun::new(task.run.as_str(), TaskRunSpec::of(&task, None, None))
    }

    #[test]
    fn small_log_is_saved_completely() {
        let kept = build(&run(), b"{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(read_log(&kept).unwrap(), b"{\"a\":1}\n{\"b\":2}\n");
        assert!(read_log(&build(&run(), b"")).unwrap().is_empty());
    }

    #[test]
    fn oversized_log_keeps_tail_of_whole_lines() {
        // Noise does not compress.
        let mut state: u64 = 1;
        let mut text = Vec::new();
        for number in 0..20_000 {
            text.extend(format!("{number} ").as_bytes());
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.extend(format!("{state:016x}").as_bytes());
            }
            text.push(b'\n');
        }
        let kept = build(&run(), &text);
        let object = serde_json::to_vec(&kept).unwrap();
        assert!(object.len() < 900 * 1024, "{}", object.len());
        let back = read_log(&kept).unwrap();
        assert!(text.ends_with(&back) && back.len() > 400 * 1024, "{}", back.len());
        assert_eq!(text[text.len() - back.len() - 1], b'\n');
    }
}
