//! Compiles `proto/` without an installed protoc: protox parses the files, tonic-build generates the code.

#![allow(clippy::disallowed_methods, reason = "a build writes files; no member runs this")]

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    const FILES: [&str; 8] = [
        "kv.proto",
        "auth.proto",
        "rpc.proto",
        "lock.proto",
        "election.proto",
        "raft.proto",
        "storage.proto",
        "internal.proto",
    ];
    let descriptors = protox::compile(FILES, ["proto"])?;
    let path = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(&path, descriptors.encode_to_vec())?;
    tonic_build::configure()
        .bytes(["."])
        // Stored bytes go into responses as they are; see `wire::RawKeyValue`.
        .extern_path(".mvccpb.KeyValue", "crate::wire::RawKeyValue")
        .file_descriptor_set_path(&path)
        .skip_protoc_run()
        .compile_protos(&FILES, &["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
