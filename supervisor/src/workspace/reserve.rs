//! Disk space that the end of a run needs, set aside before the agent starts.

use std::fs::File;
use std::io;

use orchestrator_contract::layout::Layout;
use rustix::fs::{FallocateFlags, fallocate};

/// Size in bytes: the objects of an ordinary change, the record of the run and its outcome.
const RESERVE_BYTES: u64 = 16 << 20;

/// Allocates the reserve, unless it exists.
///
/// # Errors
/// Returns an error if the disk is full or the file system cannot allocate blocks.
pub fn allocate(layout: &Layout) -> io::Result<()> {
    let path = layout.reserve();
    if path.metadata().is_ok_and(|file| file.len() >= RESERVE_BYTES) {
        return Ok(());
    }
    let file = File::create(&path)?;
    let allocated = fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES);
    if let Err(error) = allocated {
        // A part of it would be taken for all of it.
        std::fs::remove_file(&path)?;
        return Err(error.into());
    }
    Ok(())
}

/// Gives the reserve back; returns whether there was one.
#[must_use]
pub fn release(layout: &Layout) -> bool {
    std::fs::remove_file(layout.reserve()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn reserve_holds_blocks_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::create_dir_all(layout.supervisor_dir()).unwrap();
        assert!(!release(&layout));
        allocate(&layout).unwrap();
        let file = layout.reserve().metadata().unwrap();
        assert!(file.blocks() * 512 >= RESERVE_BYTES, "{} blocks", file.blocks());
        allocate(&layout).unwrap();
        assert_eq!(layout.reserve().metadata().unwrap().ino(), file.ino(), "kept");
        assert!(release(&layout) && !release(&layout));
        assert!(!layout.reserve().exists());
    }

    #[test]
    fn truncated_reserve_is_allocated_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::create_dir_all(layout.supervisor_dir()).unwrap();
        std::fs::write(layout.reserve(), "short").unwrap();
        allocate(&layout).unwrap();
        assert_eq!(layout.reserve().metadata().unwrap().len(), RESERVE_BYTES);
    }
}
