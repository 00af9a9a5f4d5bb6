//! The program as a whole; that this test is here also has `cargo test` build it for those that fetch with it.

use std::process::Command;

#[test]
fn it_says_what_it_takes() {
    for args in [&[][..], &["127.0.0.1", "1"], &["127.0.0.1", "1", "no key", "a.ogg", "", "1", "0", "9"]] {
        let got = Command::new(env!("CARGO_BIN_EXE_libp2p-receiver")).args(args).output().expect("it runs");
        let said = String::from_utf8_lossy(&got.stderr);
        assert!(!got.status.success() && got.stdout.is_empty());
        assert!(
            said.contains("usage: libp2p-receiver IP PORT KEY") || said.contains("64 hexadecimal"),
            "{said}"
        );
    }
}
