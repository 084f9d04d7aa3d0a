// The vDSO's end: section headers, for debuggers; loaders do not need them. `image.s` is the beginning.

.Lsection_names:
    .byte 0
    secname hash
    secname dynsym
    secname dynstr
    secname gnu.version
    secname gnu.version_d
    secname dynamic
    secname eh_frame_hdr
    secname text
    secname eh_frame
    secname shstrtab
.Lsection_names_end:

    .balign 8
.Lsections:
    .zero 64
    sec hash, 5, 2, hash, 2, 0, 4, 4
    sec dynsym, 11, 2, symbols, 3, 1, 8, 24
    sec dynstr, 3, 2, strings, 0, 0, 1, 0
    sec gnu.version, 0x6fffffff, 2, versions, 2, 0, 2, 2
    sec gnu.version_d, 0x6ffffffd, 2, version_definitions, 3, 2, 8, 0
    sec dynamic, 6, 2, dynamic, 3, 0, 8, 16
    sec eh_frame_hdr, 1, 2, frame_index, 0, 0, 4, 0
    sec text, 1, 6, functions, 0, 0, 16, 0
    sec eh_frame, 1, 2, frames, 0, 0, 8, 0
    sec shstrtab, 3, 0, section_names, 0, 0, 1, 0
.Lvdso_end:
    .balign 4096
    .globl rouse_vdso_end
    .hidden rouse_vdso_end
rouse_vdso_end:
    .popsection
