//! Builds `mcp-configs/*.json` into the program, so that adding a server is adding a file, and a
//! hash of the sources, so that two processes can tell whether they are the same program.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

#[expect(clippy::disallowed_methods, reason = "a build script has no config.rs")]
fn main() -> io::Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = manifest.join("../mcp-configs");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    files.sort();
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo gives OUT_DIR"))?;
    fs::write(Path::new(&out).join("mcp_configs.rs"), format!("&{files:?}"))?;

    let mut sources = Vec::new();
    for root in ["src", "contract/src", "Cargo.toml", "build.rs"] {
        println!("cargo::rerun-if-changed={}", manifest.join(root).display());
        read_sources(&manifest.join(root), &mut sources)?;
    }
    sources.sort();
    let mut hasher = DefaultHasher::new();
    for source in sources {
        hasher.write(&fs::read(source)?);
        hasher.write_u8(0xff);
    }
    println!("cargo::rustc-env=ORCHESTRATOR_BUILD_ID={:016x}", hasher.finish());
    Ok(())
}

fn read_sources(path: &Path, sources: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            read_sources(&entry?.path(), sources)?;
        }
    } else {
        sources.push(path.to_owned());
    }
    Ok(())
}
