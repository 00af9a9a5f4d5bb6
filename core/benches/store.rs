//! How fast files are scanned and verified pages are stored: `cargo bench -p iceshare --bench store`.
//!
//! Beside each figure, BLAKE3 alone over the same pages: what cannot be saved.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_main};
use iceshare::hash::hash_pages;
use iceshare::icet::Identity;
use iceshare::ogg::page;
use iceshare::publish::{Prepared, Publish, scan};
use iceshare::store::{Store, Target};
use iceshare::verify::verify_file;

const BYTES: usize = 64 << 20;
/// Pages that a driver puts at once.
const RUN: usize = 16;

/// One logical stream of pages of about 4.3 KB, the size that most encoders make.
fn pages() -> Vec<Bytes> {
    let mut out = Vec::new();
    let (mut number, mut total) = (0_u32, 0);
    while total < BYTES {
        let mut bytes = b"OggS\0\0".to_vec();
        bytes[5] = if number == 0 { 2 } else { 0 };
        bytes.extend_from_slice(&(u64::from(number) * 960).to_le_bytes());
        bytes.extend_from_slice(&7_u32.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(17);
        bytes.extend([250; 17]);
        bytes.extend((0..17 * 250_u32).map(|i| (i.wrapping_mul(number | 1) >> 3).to_le_bytes()[0]));
        page::seal(&mut bytes);
        total += bytes.len();
        out.push(bytes.into());
        number += 1;
    }
    out
}

fn publish(store: &Store, file: &Path) -> Prepared {
    let identity = Identity::from_seed(&[1; 32]);
    let path = "bench/song.ogg".parse().expect("a media path");
    let publish = Publish { file: file.to_owned(), path, title: None, repair_to: None };
    scan(store, &identity, &publish, &mut |_| {}).expect("a sound file")
}

fn bench(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("song.ogg");
    let pages = pages();
    fs::write(&file, pages.concat()).expect("space for the file");
    let bytes: u64 = pages.iter().map(|p| p.len() as u64).sum();
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10).measurement_time(Duration::from_secs(3));

    group.bench_function("blake3, page by page", |b| {
        b.iter(|| {
            for page in &pages {
                black_box(blake3::hash(page));
            }
        });
    });
    group.bench_function("blake3, 64 pages at once", |b| {
        b.iter(|| {
            for run in pages.chunks(64) {
                black_box(hash_pages(run));
            }
        });
    });
    group.bench_function("verify a file", |b| {
        b.iter(|| verify_file(&file, &mut |_, _| {}).expect("readable"));
    });
    group.bench_function("publish a file", |b| {
        b.iter_batched(
            || tempfile::tempdir().expect("a folder"),
            |data| {
                let store = Store::open(data.path()).expect("a store");
                publish(&store, &file);
                data
            },
            BatchSize::PerIteration,
        );
    });

    let store = Store::open(dir.path().join("data")).expect("a store");
    let host = publish(&store, &file).media();
    group.bench_function("put verified pages", |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let data = tempfile::tempdir().expect("a folder");
                let store = Store::open(data.path()).expect("a store");
                let fetch = store.fetch(host.manifest().clone(), Target::Own).expect("a fetch");
                let start = Instant::now();
                for (first, run) in (0..).step_by(RUN).zip(pages.chunks(RUN)) {
                    if first % 64 == 0 {
                        let slice = host.proven_slice(first / 64).expect("the slice");
                        fetch.put_slice(&slice).expect("a good slice");
                    }
                    fetch.put_pages(first, run).expect("good pages");
                }
                spent += start.elapsed();
                assert!(fetch.is_complete());
            }
            spent
        });
    });
    group.bench_function("read by page", |b| {
        b.iter(|| {
            for first in (0..pages.len() as u64).step_by(RUN) {
                let last = (first + RUN as u64 - 1).min(pages.len() as u64 - 1);
                let (start, end) = (host.span(first).expect("known"), host.span(last).expect("known"));
                let len = usize::try_from(end.end() - start.offset).expect("small");
                black_box(host.read(start.offset, len).expect("readable"));
            }
        });
    });
    group.finish();
}

mod group {
    #![allow(missing_docs, reason = "the macro writes no docs")]
    criterion::criterion_group!(benches, super::bench);
}
criterion_main!(group::benches);
