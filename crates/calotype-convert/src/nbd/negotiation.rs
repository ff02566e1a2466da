//! What client and server agree on before the first request.

use std::io;

use calotype_core::size::ByteSize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;

/// Options that the client agrees to by name, and no padding after the old form of an export.
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

const ABORT: u32 = 2;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const SET_META_CONTEXT: u32 = 10;

const ACKNOWLEDGED: u32 = 1;
const TOLD: u32 = 3;
const CONTEXT: u32 = 4;
const UNSUPPORTED: u32 = 1 << 31 | 1;
const INVALID: u32 = 1 << 31 | 3;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const HAS_FLAGS: u16 = 1;
const READ_ONLY: u16 = 2;

/// The context whose status says what is known to be zeros.
const ALLOCATION: &[u8] = b"base:allocation";
/// What it is called in answers.
pub(super) const ALLOCATION_ID: u32 = 1;

/// The longest option that a client may send, and how many.
const LONGEST: u32 = 8192;
const MOST: usize = 64;

/// A page of a blob: what is read at least.
const PREFERRED: u32 = 64 << 10;

/// Speaks with the client until it begins to ask for blocks, or leaves: then it is false.
///
/// # Errors
/// What the connection says; a client that speaks another protocol.
pub(super) async fn agree<R, W>(read: &mut R, write: &mut W, size: ByteSize) -> io::Result<bool>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut greeting = GREETING.to_be_bytes().to_vec();
    greeting.extend(OPTION.to_be_bytes());
    greeting.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    write.write_all(&greeting).await?;
    let flags = read.read_u32().await?;
    if flags & u32::from(FIXED_NEWSTYLE) == 0 {
        return Err(io::Error::other("an old client"));
    }
    let mut structured = false;
    for _ in 0..MOST {
        if read.read_u64().await? != OPTION {
            return Err(io::Error::other("no option"));
        }
        let option = read.read_u32().await?;
        let length = read.read_u32().await?;
        if length > LONGEST {
            return Err(io::Error::other("an option without end"));
        }
        let mut told = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        read.read_exact(&mut told).await?;
        match option {
            ABORT => {
                reply(write, option, ACKNOWLEDGED, &[]).await?;
                return Ok(false);
            }
            STRUCTURED_REPLY => {
                structured = true;
                reply(write, option, ACKNOWLEDGED, &[]).await?;
            }
            SET_META_CONTEXT => {
                if contains(&told, ALLOCATION) {
                    let context = [&ALLOCATION_ID.to_be_bytes()[..], ALLOCATION].concat();
                    reply(write, option, CONTEXT, &context).await?;
                }
                reply(write, option, ACKNOWLEDGED, &[]).await?;
            }
            // Every answer is a structured one.
            INFO | GO if !structured => reply(write, option, INVALID, &[]).await?,
            INFO | GO => {
                reply(write, option, TOLD, &export(size)).await?;
                reply(write, option, TOLD, &block_sizes()).await?;
                reply(write, option, ACKNOWLEDGED, &[]).await?;
                if option == GO {
                    return Ok(true);
                }
            }
            _ => reply(write, option, UNSUPPORTED, &[]).await?,
        }
    }
    Err(io::Error::other("options without end"))
}

fn export(size: ByteSize) -> Vec<u8> {
    let mut told = INFO_EXPORT.to_be_bytes().to_vec();
    told.extend(size.bytes().to_be_bytes());
    told.extend((HAS_FLAGS | READ_ONLY).to_be_bytes());
    told
}

fn block_sizes() -> Vec<u8> {
    let mut told = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [1, PREFERRED, super::LONGEST] {
        told.extend(size.to_be_bytes());
    }
    told
}

/// Whether a text is among the queries of an option: the only one that there is an answer to.
fn contains(option: &[u8], text: &[u8]) -> bool {
    option.windows(text.len()).any(|window| window == text)
}

async fn reply<W: AsyncWrite + Unpin>(
    write: &mut W,
    option: u32,
    kind: u32,
    told: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(told.len()).map_err(io::Error::other)?;
    let mut reply = OPTION_REPLY.to_be_bytes().to_vec();
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(length.to_be_bytes());
    reply.extend(told);
    write.write_all(&reply).await
}
