//! Targets of `iceshare::ogg`.

use std::ops::ControlFlow;

use bytes::Bytes;
use iceshare::ogg::{
    Damage, MIN_PAGE_LEN, PageHeader, ScanEvent, ScanMode, Scanner, SplitEvent, Splitter, Timeline, page,
    scan_slice,
};

/// Offset and length of each sound page.
type Found = Vec<(u64, usize)>;

fn in_one_piece(data: &[u8]) -> Found {
    let mut pages = Vec::new();
    let mut at = 0;
    let mut not_ogg = false;
    let outcome = scan_slice(data, ScanMode::Lenient, |e| {
        let (offset, len) = match e {
            ScanEvent::Page(p) => {
                assert!(page::verify(p.bytes) && p.bytes.len() == p.header.total_len());
                pages.push((p.offset, p.bytes.len()));
                (p.offset, p.bytes.len() as u64)
            }
            ScanEvent::Damage(Damage::Junk { offset, len } | Damage::BadCrc { offset, len }) => (offset, len),
            ScanEvent::Damage(Damage::Truncated { offset, len, .. }) => (offset, len),
            ScanEvent::Damage(Damage::NotOgg { .. }) => {
                not_ogg = true;
                return ControlFlow::<()>::Continue(());
            }
        };
        assert_eq!(offset, at, "a hole between what was found");
        assert!(len > 0);
        at += len;
        ControlFlow::Continue(())
    });
    match outcome {
        Ok(_) if !not_ogg => assert_eq!(at, data.len() as u64),
        _ => {}
    }
    pages
}

fn in_blocks(data: &[u8], block: usize) -> Found {
    let mut scanner = Scanner::new(block);
    let (mut rest, mut pages) = (data, Vec::new());
    loop {
        let space = scanner.space();
        let n = space.len().min(rest.len()).min(block);
        space[..n].copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        if n == 0 {
            scanner.finish();
        } else {
            scanner.filled(n);
        }
        while let Some(e) = scanner.next() {
            match e {
                ScanEvent::Page(p) => pages.push((p.offset, p.bytes.len())),
                ScanEvent::Damage(Damage::NotOgg { .. }) => return pages,
                ScanEvent::Damage(_) => {}
            }
        }
        if n == 0 {
            return pages;
        }
    }
}

/// Any bytes as a file and as network data: the same pages come out however they are cut, and nothing of the file is lost
/// track of. The first byte says how they are cut.
pub fn scan(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let pages = in_one_piece(data);
    assert_eq!(in_blocks(data, usize::from(cut) + 1), pages);
    let mut splitter = Splitter::new();
    let mut given: Vec<Bytes> = Vec::new();
    let mut take = |splitter: &mut Splitter| {
        while let Some(e) = splitter.next() {
            if let SplitEvent::Page { header, bytes } = e {
                assert!(page::verify(&bytes) && header.total_len() == bytes.len());
                given.push(bytes);
            }
        }
    };
    for piece in data.chunks(usize::from(cut) * 16 + 1) {
        splitter.push(Bytes::copy_from_slice(piece));
        take(&mut splitter);
        assert!(splitter.buffered() < iceshare::ogg::MAX_PAGE_LEN);
    }
    splitter.gap();
    take(&mut splitter);
    assert_eq!(splitter.buffered(), 0);
    // Each page that it gave stands in the data. (It may pass over some that a scan finds, where checksums fail often.)
    let mut from = 0;
    for bytes in &given {
        let at = data[from..].windows(bytes.len()).position(|w| w == bytes).expect("a page of the data");
        from += at + bytes.len();
    }
}

/// Pages with whatever is in them, all with right checksums: codecs, packets, times.
pub fn timeline(data: &[u8]) {
    let mut file = data.to_vec();
    let mut at = 0;
    while at + MIN_PAGE_LEN <= file.len() {
        let len = PageHeader::parse(&file[at..]).map_or(0, |h| h.total_len());
        if len > 0 && at + len <= file.len() {
            page::seal(&mut file[at..at + len]);
            at += len;
        } else {
            at += 1;
        }
    }
    let mut timeline = Timeline::new();
    let mut last = std::collections::HashMap::new();
    let mut count = 0;
    let _ = scan_slice(&file, ScanMode::Lenient, |e| {
        if let ScanEvent::Page(p) = e {
            for part in page::packet_parts(p.bytes) {
                assert!(part.data.len() <= p.header.body_len());
            }
            let place = timeline.page(&p.header, p.bytes);
            count += 1;
            assert!(place.time >= 0);
            let before = last.insert((place.link, place.stream), place.time);
            assert!(before.is_none_or(|b| b <= place.time), "time goes back within a logical stream");
        }
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(timeline.pages(), count);
    assert!(timeline.duration() >= 0);
    assert!(timeline.link_count() <= count);
    let _ = format!("{:?} {:?}", timeline.links().last(), timeline.comments());
}
