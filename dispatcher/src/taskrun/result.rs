//! The ConfigMap that keeps the outcome and the end of the log after the pod is deleted.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use kube::core::ObjectMeta;

use super::definition::TaskRun;
use super::names::{result_name, run_labels};

/// Maximum size of the compressed log; an object is limited to 1 MiB, base64 and keys included.
const MAX_BYTES: usize = 640 * 1024;

const OUTCOME_KEY: &str = "outcome.json";

const LOG_KEY: &str = "events.jsonl.gz";

/// Builds the ConfigMap that keeps outcome and log of a run.
#[must_use]
pub fn build(run: &TaskRun, log: &[u8]) -> ConfigMap {
    let status = run.status.clone().unwrap_or_default();
    let outcome = status.outcome.as_ref().map(ToString::to_string);
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(result_name(run.name())),
            namespace: run.metadata.namespace.clone(),
            labels: Some(run_labels(run)),
            owner_references: run.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: outcome.map(|outcome| [(OUTCOME_KEY.to_owned(), outcome)].into()),
        binary_data: Some([(LOG_KEY.to_owned(), ByteString(compress(log)))].into()),
    }
}

/// Returns the log that a result ConfigMap keeps; `None` if it is missing or corrupt.
#[must_use]
pub fn read_log(result: &ConfigMap) -> Option<Vec<u8>> {
    let ByteString(bytes) = result.binary_data.as_ref()?.get(LOG_KEY)?;
    let mut log = Vec::new();
    // Bounds the memory that a manipulated archive can use; the controller keeps a shorter log.
    GzDecoder::new(bytes.as_slice()).take(64 * 1024 * 1024).read_to_end(&mut log).ok()?;
    Some(log)
}

/// Compresses as many of the last lines of a log as fit into [`MAX_BYTES`].
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
        // Cuts 10 % more than the excess, since the rest may compress less well.
        let keep = (log.len() - start) as u64 * MAX_BYTES as u64 / bytes.len() as u64 * 9 / 10;
        from = log.len() - usize::try_from(keep).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::taskrun::definition::TaskRunSpec;
    use orchestrator_contract::TaskSpec;

    fn run() -> TaskRun {
        let task =
            TaskSpec::from_json(include_str!("../../../supervisor/contract/samples/task-v1.json")).unwrap();
        TaskRun::new(task.run.as_str(), TaskRunSpec::from_task(&task, None, None))
    }

    #[test]
    fn small_log_is_saved_completely() {
        let result = build(&run(), b"{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(read_log(&result).unwrap(), b"{\"a\":1}\n{\"b\":2}\n");
        assert!(read_log(&build(&run(), b"")).unwrap().is_empty());
    }

    #[test]
    fn oversized_log_keeps_tail_of_whole_lines() {
        // Pseudorandom digits barely compress.
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
        let result = build(&run(), &text);
        let object = serde_json::to_vec(&result).unwrap();
        assert!(object.len() < 900 * 1024, "{}", object.len());
        let back = read_log(&result).unwrap();
        assert!(text.ends_with(&back) && back.len() > 400 * 1024, "{}", back.len());
        assert_eq!(text[text.len() - back.len() - 1], b'\n');
    }
}
