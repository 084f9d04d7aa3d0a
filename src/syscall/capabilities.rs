//! What a thread may do beyond its user: capget(2) and capset(2) (capabilities(7)).

use abi::{Errno, Result};
use fs::Credentials;
use fs::permission::Capabilities;

use crate::mm::user::UserPtr;
use crate::process::RunningThread;
use crate::process::table;

/// The versions of `struct __user_cap_header_struct` and how many words of data each has.
const CAPABILITY_VERSIONS: [(u32, usize); 3] = [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];

async fn capability_header(thread: &mut RunningThread, header: UserPtr<[u32; 2]>) -> Result<(usize, i32, bool)> {
    let [version, pid] = thread.get(header).await?;
    match CAPABILITY_VERSIONS.iter().find(|(known, _)| *known == version) {
        Some((_, words)) => Ok((*words, pid as i32, true)),
        None => {
            thread.put(header, &[CAPABILITY_VERSIONS[2].0, pid]).await?;
            Ok((0, pid as i32, false))
        }
    }
}

/// capget(2). `EINVAL`: an unknown version (the preferred one is stored). `ESRCH`: no such process. `EFAULT`.
pub async fn capget(thread: &mut RunningThread, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<usize> {
    let (words, pid, is_known) = capability_header(thread, header).await?;
    if !is_known {
        return if data.is_null() { Ok(0) } else { Err(Errno::EINVAL) };
    }
    let credentials = if pid == 0 || pid == thread.tid() {
        thread.credentials.clone()
    } else {
        let other = table::thread(pid).ok_or(Errno::ESRCH)?;
        let view = other.view.lock();
        view.as_ref().map(|view| view.credentials.clone()).ok_or(Errno::ESRCH)?
    };
    let sets = [credentials.effective, credentials.permitted, credentials.inheritable].map(|set| set.bits());
    for word in 0..words {
        let part = sets.map(|set| (set >> (32 * word)) as u32);
        thread.put(data.element(word), &part).await?;
    }
    Ok(0)
}

/// capset(2). `EPERM`: more than is permitted, or another process. `EINVAL`, `EFAULT`.
pub async fn capset(thread: &mut RunningThread, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<usize> {
    let (words, pid, is_known) = capability_header(thread, header).await?;
    if !is_known {
        return Err(Errno::EINVAL);
    }
    if pid != 0 && pid != thread.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for word in 0..words {
        let part = thread.get(data.element(word)).await?;
        for (set, bits) in sets.iter_mut().zip(part) {
            *set |= u64::from(bits) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(Capabilities::from_bits_truncate);
    let mut new = Credentials::clone(&thread.credentials);
    let may_inherit = new.inheritable | new.permitted;
    let exceeds = !new.permitted.contains(permitted)
        || !permitted.contains(effective)
        || !new.can(Capabilities::SETPCAP) && !may_inherit.contains(inheritable);
    if exceeds {
        return Err(Errno::EPERM);
    }
    new.effective = effective;
    new.permitted = permitted;
    new.inheritable = inheritable;
    new.ambient &= permitted & inheritable;
    thread.set_credentials(new);
    Ok(0)
}
