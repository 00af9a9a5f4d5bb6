//! A plain web server of one file, to compare the gateway with: GET with a byte range, one request a connection.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

pub(super) struct Server {
    pub(super) url: String,
}

impl Server {
    /// Runs until the test program ends.
    pub(super) fn of(file: &Path) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no port: {e}"));
        let addr = listener.local_addr().unwrap_or_else(|e| panic!("no port: {e}"));
        let file: PathBuf = file.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let file = file.clone();
                // A client that goes away is no error.
                std::thread::spawn(move || answer(&stream, &file));
            }
        });
        Server { url: format!("http://{addr}/media.ogg") }
    }
}

fn answer(mut stream: &TcpStream, file: &Path) -> std::io::Result<()> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    let mut range = None;
    for line in BufReader::new(stream).lines() {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some((first, last)) = line.strip_prefix("range: bytes=").and_then(|r| r.split_once('-')) {
            range = first.parse().ok().map(|first: u64| (first, last.parse().unwrap_or(length - 1)));
        }
    }
    let (first, last) = range.unwrap_or((0, length - 1));
    let status = range.map_or("200 OK".to_owned(), |_| {
        format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{length}")
    });
    let count = last + 1 - first;
    let head = "Content-Type: audio/ogg\r\nAccept-Ranges: bytes\r\nConnection: close";
    write!(stream, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {count}\r\n\r\n")?;
    file.seek(SeekFrom::Start(first))?;
    std::io::copy(&mut file.take(count), &mut stream).map(drop)
}
