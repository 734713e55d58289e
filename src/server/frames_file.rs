//! A stream of frames (`framed`) as a file: how snapshots' bodies and the index's checkpoints lie on the disk.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use crate::{
    error::Fault,
    framed::{self, Broken, Frames, MAGIC_BYTES},
    storage::{Disk, DiskFile, OpenMode},
};

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;

/// Writes a file frame by frame.
pub(super) struct FramesWriter<F> {
    file: F,
    path: PathBuf,
    offset: u64,
    checksum: u32,
}

impl<F: DiskFile> FramesWriter<F> {
    /// A new file in place of what was there.
    pub fn create(
        disk: &impl Disk<File = F>,
        path: &Path,
        magic: &'static [u8; MAGIC_BYTES],
    ) -> Result<Self, Fault> {
        let file = disk.open(path, OpenMode::Truncate).map_err(|e| cannot_write(path, e))?;
        let (start, checksum) = framed::start(magic);
        let mut writer = Self { file, path: path.to_owned(), offset: 0, checksum };
        writer.put(&start)?;
        Ok(writer)
    }

    /// The next frame, with the payload that `fill` writes.
    pub fn frame(&mut self, fill: impl FnOnce(&mut BytesMut)) -> Result<(), Fault> {
        let frame = framed::frame(&mut self.checksum, fill);
        self.put(&frame)
    }

    /// The end. The file and the stream's checksum; nothing is synced.
    pub fn end(mut self) -> Result<(F, u32), Fault> {
        self.put(&framed::end(self.checksum))?;
        Ok((self.file, self.checksum))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.file.write_at(self.offset, bytes).map_err(|e| cannot_write(&self.path, e))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Fault {
    Fault::io(format!("write {}", path.display()), error)
}

/// Reads a file's frames: their payloads, and at the end whether the stream was whole and, if a checksum is expected, the
/// one that is meant. An error is the last item.
pub(super) struct FramesReader<F> {
    file: F,
    path: PathBuf,
    /// The stream's checksum, if others know it.
    expected: Option<u32>,
    offset: u64,
    frames: Frames,
    done: bool,
}

impl<F: DiskFile> FramesReader<F> {
    /// From the start of `file`, which is at `path`.
    pub fn new(file: F, path: PathBuf, magic: &'static [u8; MAGIC_BYTES], expected: Option<u32>) -> Self {
        Self { file, path, expected, offset: 0, frames: Frames::new(magic), done: false }
    }

    fn read(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(payload) = self.frames.next_frame().map_err(|broken| self.corrupt(broken))? {
                return Ok(Some(payload));
            }
            let mut read = vec![0; READ_BYTES];
            let length = self
                .file
                .read_at(self.offset, &mut read)
                .map_err(|e| Fault::io(format!("read {}", self.path.display()), e))?;
            if length == 0 {
                let checksum = self.frames.finish().map_err(|broken| self.corrupt(broken))?;
                return match self.expected {
                    Some(expected) if expected != checksum => {
                        Err(self.corrupt(Broken("it is another one than the tables name")))
                    }
                    Some(_) | None => Ok(None),
                };
            }
            self.offset += length as u64;
            self.frames.push(&read[..length]);
        }
    }

    fn corrupt(&self, Broken(why): Broken) -> Fault {
        Fault::corrupt(format!("{}: {why}", self.path.display()))
    }
}

impl<F: DiskFile> Iterator for FramesReader<F> {
    type Item = Result<Bytes, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}
