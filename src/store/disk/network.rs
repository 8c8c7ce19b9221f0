//! Whether a folder is on a network file system: SQLite's write-ahead log needs memory that all its users share.

use std::path::Path;

/// False where it cannot be told.
#[cfg(target_os = "linux")]
pub fn is_network(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(name) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return false };
    let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `name` ends with a zero byte, and `found` is only read when the call says that it was filled.
    let kind = unsafe {
        if libc::statfs(name.as_ptr(), found.as_mut_ptr()) != 0 {
            return false;
        }
        found.assume_init().f_type
    };
    is_network_kind(kind as u32)
}

#[cfg(not(target_os = "linux"))]
pub fn is_network(_: &Path) -> bool {
    false
}

/// By the numbers of statfs(2).
pub fn is_network_kind(kind: u32) -> bool {
    const NFS: u32 = 0x6969;
    const SMB: u32 = 0x517b;
    const CIFS: u32 = 0xff53_4d42;
    const SMB2: u32 = 0xfe53_4d42;
    const CEPH: u32 = 0x00c3_6400;
    const AFS: u32 = 0x5346_414f;
    const NINE_P: u32 = 0x0102_1997;
    const LUSTRE: u32 = 0x0bd0_0bd0;
    const GPFS: u32 = 0x4750_4653;
    const CODA: u32 = 0x7375_7245;
    matches!(kind, NFS | SMB | CIFS | SMB2 | CEPH | AFS | NINE_P | LUSTRE | GPFS | CODA)
}
