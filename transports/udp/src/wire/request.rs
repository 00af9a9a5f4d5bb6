//! Bodies of requests: the credit, and then a request as over streams (`proto-spec/spec/stream.md`, section 2).

use iceshare::icet::frame;
use iceshare::icet::stream::PagesRequest;
use iceshare::protocol::Request;

use super::{Reader, WireError, put_varint};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Bytes that may be sent at first.
    pub credit: u64,
    /// Media, part and ticket.
    pub request: PagesRequest,
}

impl Body {
    /// The body of a transport's request.
    #[must_use]
    pub fn of(request: &Request, credit: u64) -> Body {
        Body {
            credit,
            request: PagesRequest {
                path: request.path.clone(),
                media: request.media,
                version: request.version,
                what: request.what.clone(),
                ticket: request.ticket.clone(),
            },
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        put_varint(&mut out, self.credit);
        out.extend_from_slice(&frame::encode(&self.request));
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(bytes: &[u8]) -> Result<Body, WireError> {
        let mut r = Reader(bytes);
        let credit = r.varint()?;
        let request = PagesRequest::from_body(r.0).map_err(|_| WireError::Value("no request"))?;
        Ok(Body { credit, request })
    }
}
