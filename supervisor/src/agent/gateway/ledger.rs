//! Keeps the figures of a run in a file, so that a killed run has them too.

use std::path::Path;
use std::time::Duration;

use super::budget::Spending;
use crate::record::file::write_json;

/// Least time between two writes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the figures whenever they changed, until the future is dropped.
pub async fn keep_ledger(spending: Spending) {
    let Some(file) = spending.file().map(Path::to_owned) else { return };
    loop {
        spending.changed().await;
        let (usage, file) = (spending.usage(), file.clone());
        // A full disk must not end the run; the outcome has the figures too.
        let written = tokio::task::spawn_blocking(move || write_json(&file, &usage)).await;
        if let Ok(Err(error)) = written {
            tracing::debug!(%error, "cannot write the ledger");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_contract::outcome::Usage;

    use super::super::budget::Ask;
    use super::*;
    use crate::record::file::read_json;

    #[tokio::test]
    async fn ledger_shows_open_and_cut_requests_as_unconfirmed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("usage.json");
        let spending = Spending::new(Some(1.0), Some(file.clone()));
        let keeper = tokio::spawn(keep_ledger(spending.clone()));
        let ask = Ask { conversation: "c", input: 0, output_token: 1_000, max_tokens: 100_000 };
        let _open = spending.reserve(ask).await.unwrap();
        drop(spending.reserve(ask).await.unwrap());
        let written = async {
            loop {
                if let Some(usage) = read_json::<Usage>(&file).unwrap() {
                    return usage;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let usage = tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
        assert_eq!((usage.cost_usd, usage.unconfirmed_usd), (0.0, 0.2));
        keeper.abort();
    }
}
