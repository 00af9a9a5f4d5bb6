//! The receiver's side of a stream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use icet::frame;
use icet::stream::{PagesAnswer, PagesRequest, split};
use tokio::time::timeout;

use super::intake::{Intake, Next, ended, misbehaved};
use super::{Inbound, Lost, Outbound};
use crate::protocol::{ErrorKind, Piece, Request, TransportError};

/// Sends a request and waits, for `patience` at most, until it is accepted.
///
/// # Errors
/// What the host refuses with; [`ErrorKind::Broken`] if the stream ends before its answer, or `patience` does;
/// [`ErrorKind::Protocol`].
pub async fn ask<I: Inbound, O: Outbound>(
    mut inbound: I,
    mut outbound: O,
    request: &Request,
    patience: Duration,
) -> Result<Answer<I, O>, TransportError> {
    let wire = PagesRequest {
        path: request.path.clone(),
        media: request.media,
        version: request.version,
        what: request.what.clone(),
        ticket: request.ticket.clone(),
    };
    let mut bytes = Vec::new();
    frame::write(&wire, &mut bytes);
    let conversation = async {
        let mut chunks = [Bytes::from(bytes)];
        while !chunks[0].is_empty() {
            outbound.write(&mut chunks).await?;
        }
        outbound.finish().await?;
        read_answer(&mut inbound).await
    };
    let silent = |_| TransportError::new(ErrorKind::Broken, "the host does not answer");
    let (answer, rest) = timeout(patience, conversation).await.map_err(silent)??;
    match answer {
        PagesAnswer::Refused(ending) => Err(ended(&ending)),
        PagesAnswer::Accepted(accepted) => {
            let mut intake = Intake::new(&request.what, accepted)?;
            intake.push(rest);
            Ok(Answer { inbound, _outbound: outbound, intake, over: false })
        }
    }
}

impl From<Lost> for TransportError {
    fn from(e: Lost) -> TransportError {
        TransportError::new(e.kind(), e.to_string()).because(e)
    }
}

/// The answer's frame, and what came with it.
async fn read_answer(inbound: &mut impl Inbound) -> Result<(PagesAnswer, Bytes), TransportError> {
    let mut begun = BytesMut::new();
    loop {
        let Some(bytes) = inbound.read().await? else {
            return Err(TransportError::new(ErrorKind::Broken, "the host ends without an answer"));
        };
        // Mostly it is there at once, and what came with it stays where it is.
        let all = if begun.is_empty() {
            bytes
        } else {
            begun.extend_from_slice(&bytes);
            begun.clone().freeze()
        };
        let bad = || misbehaved("the host's answer cannot be read");
        match split(&all).map_err(|e| bad().because(e))? {
            Some((body, taken)) => {
                let answer = PagesAnswer::from_body(body).map_err(|e| bad().because(e))?;
                return Ok((answer, all.slice(taken..)));
            }
            None if begun.is_empty() => begun.extend_from_slice(&all),
            None => {}
        }
    }
}

/// What comes of an accepted request. Dropping it cancels.
#[derive(Debug)]
pub struct Answer<I, O> {
    inbound: I,
    /// Some carriers take a dropped direction for the end of both.
    _outbound: O,
    intake: Intake,
    over: bool,
}

impl<I: Inbound, O: Outbound> Answer<I, O> {
    /// The next piece; none at the end of a range that came whole. Cancel safe.
    ///
    /// # Errors
    /// Once, after which nothing more comes. [`ErrorKind::NoRange`] where the host left something out.
    pub async fn next(&mut self) -> Result<Option<Piece>, TransportError> {
        loop {
            if self.over {
                return Ok(None);
            }
            match self.intake.next() {
                Ok(Next::Piece(piece)) => return Ok(Some(piece)),
                Ok(Next::End) => {
                    self.over = true;
                    // So that the carrier sees the end too, and keeps the connection.
                    match self.inbound.read().await {
                        Ok(Some(_)) => return Err(misbehaved("the host sends something after the ending")),
                        Ok(None) | Err(_) => return Ok(None),
                    }
                }
                Err(e) => {
                    self.over = true;
                    return Err(e);
                }
                Ok(Next::More) => match self.inbound.read().await {
                    Ok(Some(bytes)) => self.intake.push(bytes),
                    Ok(None) => {
                        self.over = true;
                        return Err(TransportError::new(ErrorKind::Broken, "the host breaks off"));
                    }
                    Err(e) => {
                        self.over = true;
                        return Err(e.into());
                    }
                },
            }
        }
    }

    /// The pieces as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<Piece, TransportError>> {
        stream::try_unfold(
            self,
            |mut answer| async move { Ok(answer.next().await?.map(|piece| (piece, answer))) },
        )
        .boxed()
    }
}
