//! The walk along a path (path_resolution(7)).
//!
//! A [`Walker`] is a small machine that goes as far as it can without waiting; only a name that neither the cache nor the file
//! system knows at once makes it stop, with what it waits for:
//!
//! ```text
//!   advance() ──► Step::Done(outcome)            the end of the path
//!             ├─► Step::Lookup ── ask the folder, await ── arrived(dentry) ──► advance() …
//!             └─► Step::ReadLink ── read the link, await ── link_read(..) ──► advance() …
//! ```
//!
//! [`Caller::try_walk`] is one `advance`; [`Caller::walk`] goes on to the end. A symbolic link puts its target in front of what is
//! left of the path, and the walk goes on in the new text.
//!
//! Next: `context.rs`. Exercise: where would a limit on the number of components go, and why is there none?

use alloc::sync::Arc;
use alloc::vec::Vec;

use bitflags::bitflags;

use crate::context::{At, Caller};
use crate::dentry::Dentry;
use crate::inode::Kind;
use crate::mount::MountFlags;
use crate::path::{NAME_MAX, PATH_MAX, Path};
use crate::permission::{Access, check};
use crate::{Errno, Result};

/// So many symbolic links may be followed in one walk.
const LINKS_AT_MOST: u32 = 40;

bitflags! {
    /// How to walk.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct WalkFlags: u32 {
        /// A symbolic link at the end is followed.
        const FOLLOW = 1;
        /// Stop at the folder of the last name, which need not exist.
        const PARENT = 1 << 1;
        /// The end must be a folder.
        const DIRECTORY = 1 << 2;
        /// O_CREAT: a slash behind the last name is refused with `EISDIR`, whatever is there.
        const CREATE = 1 << 8;
        /// openat2: no symbolic link anywhere (`ELOOP`).
        const NO_SYMLINKS = 1 << 3;
        /// openat2: no magic link (`ELOOP`).
        const NO_MAGIC_LINKS = 1 << 4;
        /// openat2: stay in the mount (`EXDEV`).
        const NO_CROSSING = 1 << 5;
        /// openat2: stay below the beginning (`EXDEV`).
        const BENEATH = 1 << 6;
        /// openat2: the beginning is the root.
        const IN_ROOT = 1 << 7;
    }
}

/// Where a walk ended.
pub enum Outcome {
    /// At something that exists.
    Found(Path),
    /// At a name that is not in the folder; or, with [`WalkFlags::PARENT`], at the last name unseen. [`Walker::last`] tells the name.
    Last(Path),
}

/// What a walk needs to go on.
enum Step {
    Done(Outcome),
    /// Ask `current` for the component.
    Lookup,
    /// Read this link.
    ReadLink(Arc<Dentry>),
}

/// A walk under way. See the head of this file.
pub struct Walker<'a> {
    caller: Caller<'a>,
    flags: WalkFlags,
    root: Path,
    current: Path,
    text: Text<'a>,
    /// Where in the text the walk is.
    position: usize,
    /// The component that is being looked at.
    component: (usize, usize),
    links_followed: u32,
    ends_in_slash: bool,
}

enum Text<'a> {
    Given(&'a [u8]),
    Expanded(Vec<u8>),
}

impl Text<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Given(bytes) => bytes,
            Text::Expanded(bytes) => bytes,
        }
    }
}

impl<'a> Walker<'a> {
    fn new(caller: Caller<'a>, at: At<'a>, flags: WalkFlags) -> Result<Walker<'a>> {
        if at.path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if at.path.is_empty() && !at.may_be_empty {
            return Err(Errno::ENOENT);
        }
        let is_absolute = at.path.first() == Some(&b'/');
        let is_confined = flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT);
        if is_absolute && flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let start = match at.folder {
            _ if is_absolute && !is_confined => caller.context.root(),
            Some(folder) => folder.clone(),
            None => caller.context.working_directory(),
        };
        let root = if is_confined || is_absolute { start.clone() } else { caller.context.root() };
        Ok(Walker {
            caller,
            flags,
            root,
            current: start,
            text: Text::Given(at.path),
            position: 0,
            component: (0, 0),
            links_followed: 0,
            ends_in_slash: false,
        })
    }

    /// The last name of the path; empty for `/`.
    pub fn last(&self) -> &[u8] {
        &self.text.bytes()[self.component.0..self.component.1]
    }

    /// Whether a slash follows the last name.
    pub fn ends_in_slash(&self) -> bool {
        self.ends_in_slash
    }

    /// Finds the next component from `position` on; `false` at the end of the path.
    fn next_component(&mut self) -> Result<bool> {
        let text = self.text.bytes();
        let skip =
            |from: usize, what: fn(&u8) -> bool| text[from..].iter().position(what).map_or(text.len(), |at| from + at);
        let start = skip(self.position, |&byte| byte != b'/');
        if start == text.len() {
            return Ok(false);
        }
        let end = skip(start, |&byte| byte == b'/');
        self.ends_in_slash = end < text.len();
        self.component = (start, end);
        self.position = end;
        if end - start > NAME_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(true) }
    }

    fn is_last(&self) -> bool {
        self.text.bytes()[self.position..].iter().all(|&byte| byte == b'/')
    }

    /// Goes on until the end, or until something must be awaited.
    fn advance(&mut self) -> Result<Step> {
        while self.next_component()? {
            if !self.current.dentry.is_directory() {
                return Err(Errno::ENOTDIR);
            }
            check(self.caller.credentials, &**self.current.inode(), Access::EXECUTE)?;
            if self.flags.contains(WalkFlags::PARENT) && self.is_last() {
                return Ok(Step::Done(Outcome::Last(self.current.clone())));
            }
            if self.flags.contains(WalkFlags::CREATE) && self.ends_in_slash && self.is_last() {
                return Err(Errno::EISDIR);
            }
            let answer = match self.last() {
                b"." => continue,
                b".." => {
                    self.go_up()?;
                    continue;
                }
                name => self.current.dentry.lookup(name).now().ok(),
            };
            match answer {
                Some(Ok(dentry)) => {
                    if let Some(link) = self.arrived(dentry)? {
                        return Ok(Step::ReadLink(link));
                    }
                }
                Some(Err(errno)) => return self.absent(errno).map(Step::Done),
                None => return Ok(Step::Lookup),
            }
        }
        self.finish().map(Step::Done)
    }

    /// The name is not there: an outcome if it is the last.
    fn absent(&self, errno: Errno) -> Result<Outcome> {
        if errno == Errno::ENOENT && self.is_last() { Ok(Outcome::Last(self.current.clone())) } else { Err(errno) }
    }

    fn finish(&mut self) -> Result<Outcome> {
        if self.flags.contains(WalkFlags::PARENT) {
            // The path is `/`, or empty: there is no last name.
            self.component = (0, 0);
            return Ok(Outcome::Last(self.current.clone()));
        }
        let must_be_directory = self.ends_in_slash || self.flags.contains(WalkFlags::DIRECTORY);
        if must_be_directory && !self.current.dentry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        Ok(Outcome::Found(self.current.clone()))
    }

    fn go_up(&mut self) -> Result<()> {
        if self.current.is_same(&self.root) && self.flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let parent = self.current.parent(&self.root);
        self.move_to(parent)
    }

    fn move_to(&mut self, path: Path) -> Result<()> {
        if self.flags.contains(WalkFlags::NO_CROSSING) && !Arc::ptr_eq(&path.mount, &self.current.mount) {
            return Err(Errno::EXDEV);
        }
        self.current = path;
        Ok(())
    }

    /// Steps onto an entry of `current`, following it if it is a link; a link that must be read first is returned.
    fn arrived(&mut self, dentry: Arc<Dentry>) -> Result<Option<Arc<Dentry>>> {
        let is_final = self.is_last() && !self.ends_in_slash;
        let is_link = dentry.inode().core().kind == Kind::Symlink;
        if !is_link || (is_final && !self.flags.contains(WalkFlags::FOLLOW)) {
            let path = Path { mount: self.current.mount.clone(), dentry }.across_mounts();
            self.move_to(path)?;
            return Ok(None);
        }
        self.links_followed += 1;
        if self.links_followed > LINKS_AT_MOST
            || self.flags.contains(WalkFlags::NO_SYMLINKS)
            || self.current.mount.flags().contains(MountFlags::NOSYMFOLLOW)
        {
            return Err(Errno::ELOOP);
        }
        if self.is_last() && self.is_trap(&dentry) {
            return Err(Errno::EACCES);
        }
        if let Some(place) = dentry.inode().magic_link() {
            if self.flags.contains(WalkFlags::NO_MAGIC_LINKS) {
                return Err(Errno::ELOOP);
            }
            if self.flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            self.move_to(place?)?;
            return Ok(None);
        }
        if let Some(target) = dentry.cached_link() {
            self.link_read(&target)?;
            return Ok(None);
        }
        let target = dentry.inode().read_link().now().ok();
        let Some(target) = target else { return Ok(Some(dentry)) };
        let target = dentry.remember_link(&target?);
        self.link_read(&target)?;
        Ok(None)
    }

    /// As /proc/sys/fs/protected_symlinks: in a sticky folder that all may write, such as /tmp, only one's own link is followed, or one
    /// of the folder's owner.
    fn is_trap(&self, link: &Dentry) -> bool {
        let folder = self.current.inode().permissions();
        let owner = link.inode().permissions().uid;
        folder.mode & 0o1002 == 0o1002 && owner != self.caller.credentials.fsuid && owner != folder.uid
    }

    /// Goes on along the target of a link, and then along what was left of the path.
    fn link_read(&mut self, target: &[u8]) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target[0] == b'/' {
            if self.flags.contains(WalkFlags::BENEATH) {
                return Err(Errno::EXDEV);
            }
            let root = self.root.clone();
            self.move_to(root)?;
        }
        let rest = &self.text.bytes()[self.position..];
        let mut text = Vec::new();
        text.try_reserve_exact(target.len() + rest.len()).map_err(|_| Errno::ENOMEM)?;
        text.extend_from_slice(target);
        text.extend_from_slice(rest);
        self.text = Text::Expanded(text);
        self.position = 0;
        self.ends_in_slash = false;
        Ok(())
    }

    /// Awaits what a step needs, and takes it.
    async fn wait_for(&mut self, step: Step) -> Result<Option<Outcome>> {
        match step {
            Step::Done(outcome) => return Ok(Some(outcome)),
            Step::ReadLink(link) => self.read_link(link).await?,
            Step::Lookup => {
                let folder = self.current.dentry.clone();
                match folder.lookup(self.last()).await {
                    Ok(dentry) => {
                        if let Some(link) = self.arrived(dentry)? {
                            self.read_link(link).await?;
                        }
                    }
                    Err(errno) => return self.absent(errno).map(Some),
                }
            }
        }
        Ok(None)
    }

    async fn read_link(&mut self, link: Arc<Dentry>) -> Result<()> {
        let target = link.inode().read_link().await?;
        let target = link.remember_link(&target);
        self.link_read(&target)
    }

    /// Goes to the end of the path.
    async fn run(&mut self) -> Result<Outcome> {
        loop {
            let step = self.advance()?;
            if let Some(outcome) = self.wait_for(step).await? {
                return Ok(outcome);
            }
        }
    }
}

impl<'a> Caller<'a> {
    /// Walks as far as the end if nothing has to be awaited: `None` if something has.
    pub fn try_walk(&self, at: At<'a>, flags: WalkFlags) -> Option<Result<Path>> {
        let mut walker = match Walker::new(*self, at, flags) {
            Ok(walker) => walker,
            Err(errno) => return Some(Err(errno)),
        };
        match walker.advance() {
            Ok(Step::Done(Outcome::Found(path))) => Some(Ok(path)),
            Ok(Step::Done(Outcome::Last(_))) => Some(Err(Errno::ENOENT)),
            Ok(_) => None,
            Err(errno) => Some(Err(errno)),
        }
    }

    /// Walks to something that exists.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, `EIO`; `EXDEV` where the flags forbid to leave.
    pub async fn walk(&self, at: At<'_>, flags: WalkFlags) -> Result<Path> {
        let mut walker = Walker::new(*self, at, flags)?;
        match walker.run().await? {
            Outcome::Found(path) => Ok(path),
            Outcome::Last(_) => Err(Errno::ENOENT),
        }
    }

    /// Walks to the end, where something is or could be made.
    pub(crate) async fn walk_to_last<'w>(&'w self, at: At<'w>, flags: WalkFlags) -> Result<(Walker<'w>, Outcome)> {
        let mut walker = Walker::new(*self, at, flags)?;
        let outcome = walker.run().await?;
        Ok((walker, outcome))
    }
}
