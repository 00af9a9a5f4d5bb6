//! Memory of publishing and fetching does not grow with the file. A process of its own, so that its peak is that of this work.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use bytes::Bytes;
use iceshare::icet::Identity;
use iceshare::ogg::page;
use iceshare::publish::{Publish, scan};
use iceshare::store::{Store, Target};

const PAGES: u32 = 24_000;
const PAGE: usize = 4096;

/// Peak of the resident memory in bytes; none where the system does not tell.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

fn ogg_page(number: u32) -> Vec<u8> {
    let mut bytes = b"OggS\0\0".to_vec();
    bytes[5] = if number == 0 { 2 } else { 0 };
    bytes.extend_from_slice(&(u64::from(number) * 960).to_le_bytes());
    bytes.extend_from_slice(&7_u32.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.push(16);
    bytes.extend([254; 16]);
    bytes.resize(43 + 16 * 254, number.to_le_bytes()[0]);
    page::seal(&mut bytes);
    bytes
}

#[test]
fn a_large_file_is_published_and_fetched_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large.ogg");
    let mut out = BufWriter::new(File::create(&file).unwrap());
    for number in 0..PAGES {
        out.write_all(&ogg_page(number)).unwrap();
    }
    drop(out);
    let before = peak();

    let store = Store::open(dir.path().join("host")).unwrap();
    let publish = Publish { file, path: "large.ogg".parse().unwrap(), title: None, repair_to: None };
    let host = scan(&store, &Identity::from_seed(&[1; 32]), &publish, &mut |_| {}).unwrap().media();
    assert_eq!(host.manifest().pages, u64::from(PAGES));
    let store = Store::open(dir.path().join("receiver")).unwrap();
    let fetch = store.fetch(host.manifest().clone(), Target::Own).unwrap();
    for index in 0..host.manifest().slices() {
        let slice = fetch.put_slice(&host.proven_slice(index).unwrap()).unwrap();
        let mut bytes = host.read(slice.offset, usize::try_from(slice.bytes()).unwrap()).unwrap();
        let pages: Vec<Bytes> = slice.records.iter().map(|r| bytes.split_to(r.len as usize)).collect();
        fetch.put_pages(slice.first_page(), &pages).unwrap();
    }
    drop(fetch);
    // As after kill -9: everything is verified again.
    let fetch = store.fetch(host.manifest().clone(), Target::Own).unwrap();
    assert!(fetch.is_complete());
    fetch.finish().unwrap();

    if let (Some(before), Some(after)) = (before, peak()) {
        let grown = after - before;
        assert!(grown < 16 << 20, "{grown} bytes for a file of {}", PAGES as usize * PAGE);
    }
}
