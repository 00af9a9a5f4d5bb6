//! Makes a sound file out of the clean pages of a damaged one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use crate::ogg::{ScanEvent, ScanMode, scan_reader};
use crate::store::{StoreError, disk};

use super::PublishError;

/// Writes the clean pages of `from` to the new file `to`, which only comes into being whole; a file that stands there is taken if
/// it is just that. Returns how many bytes were left out.
///
/// # Errors
/// [`PublishError::NotTheCopy`] if `to` is another file; else what [`super::scan`] says of bad files, and the disk's.
pub(super) fn repair(from: &Path, to: &Path) -> Result<u64, PublishError> {
    let (file, temp) = disk::temporary(to).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => StoreError::NoFolder(disk::folder(to).to_owned()),
        _ => StoreError::io("create", to, e),
    })?;
    let copied = copy(from, file).and_then(|left_out| {
        match disk::rename_new(&temp, to) {
            Ok(()) => return Ok(left_out),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(StoreError::io("write", to, e).into()),
        }
        let same = same(&temp, to).map_err(|e| StoreError::reading(to, e))?;
        let _ = fs::remove_file(&temp);
        if same { Ok(left_out) } else { Err(PublishError::NotTheCopy(to.to_owned())) }
    });
    if copied.is_err() {
        let _ = fs::remove_file(&temp);
    }
    copied
}

/// Whether two files have the same content.
fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let meta = fs::metadata(b)?;
    if !meta.is_file() || meta.len() != fs::metadata(a)?.len() {
        return Ok(false);
    }
    let open = |path| File::open(path).map(|f| BufReader::with_capacity(1 << 20, f));
    let (mut a, mut b) = (open(a)?, open(b)?);
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let n = left.len().min(right.len());
        if left.get(..n) != right.get(..n) {
            return Ok(false);
        }
        if n == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        a.consume(n);
        b.consume(n);
    }
}

fn copy(from: &Path, to: File) -> Result<u64, PublishError> {
    let reader = File::open(from).map_err(|e| StoreError::reading(from, e))?;
    // As any file that the user makes, not as the secret that a temporary file is.
    let mode = reader.metadata().map_err(|e| StoreError::reading(from, e))?.permissions();
    to.set_permissions(mode).map_err(|e| StoreError::io("write", from, e))?;
    let mut out = BufWriter::with_capacity(1 << 20, to);
    let scanned = scan_reader(reader, ScanMode::Lenient, |event| match event {
        ScanEvent::Page(page) => match out.write_all(page.bytes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        },
        ScanEvent::Damage(_) => ControlFlow::Continue(()),
    });
    let stats = match scanned.map_err(|e| PublishError::of_scan(from, e))? {
        ControlFlow::Continue(stats) => stats,
        ControlFlow::Break(e) => return Err(StoreError::io("write the repaired copy of", from, e).into()),
    };
    let file = out.into_inner().map_err(io::IntoInnerError::into_error);
    file.and_then(|f| f.sync_all()).map_err(|e| StoreError::io("write the repaired copy of", from, e))?;
    Ok(stats.damaged)
}
