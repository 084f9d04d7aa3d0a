//! What the documents say is so: code that they quote is in the source, paths and commands exist, links and reading paths lead on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Files below the project's root whose names end so, relative to it.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the project's folders can be read") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(ending) {
                files.push(path.strip_prefix(root()).expect("it is below").to_owned());
            }
        }
    }
    files.sort();
    files
}

/// A block of a document between two fences, with the line in front of it.
struct Block<'t> {
    kind: &'t str,
    before: String,
    lines: Vec<&'t str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut paragraph = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let lines = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { kind, before: paragraph.trim().to_owned(), lines });
            paragraph.clear();
        } else if line.is_empty() && !paragraph.trim().ends_with(':') {
            paragraph.clear();
        } else {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    blocks
}

/// What stands between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What is wrong with a quotation of a file: its parts, between lines of `// …`, are to be found there, one after the other.
fn misquoted(source: &str, lines: &[&str]) -> Option<String> {
    let source = without_blanks(source);
    let mut rest = source.as_str();
    for part in lines.split(|line| line.trim() == "// …") {
        let wanted = without_blanks(&part.join("\n"));
        let Some(place) = rest.find(&wanted) else { return Some(part.join("\n")) };
        rest = &rest[place + wanted.len()..];
    }
    None
}

#[test]
fn code_in_async_md_is_that_of_the_file_and_item_that_it_names() {
    let text = read("docs/async.md");
    let mut count = 0;
    for block in blocks(&text).iter().filter(|block| block.kind == "rust") {
        let names = quoted(&block.before);
        let path = names.iter().rposition(|name| name.ends_with(".rs")).expect("a file is named");
        let source = read(names[path]);
        let item = names.get(path + 1).expect("an item is named");
        assert!(source.contains(item.trim_start_matches("struct ")), "{}: {item}", names[path]);
        let wrong = misquoted(&source, &block.lines);
        assert_eq!(wrong, None, "{} does not say so", names[path]);
        count += 1;
    }
    assert!(count > 15, "the page quotes code: {count}");
    assert!(misquoted("fn a() { b() }", &["fn a()", "// …", "b()"]).is_none());
    assert!(misquoted("fn a() { b() }", &["b()", "// …", "fn a()"]).is_some());
}

#[test]
fn paths_that_documents_name_exist() {
    let mut missing = BTreeSet::new();
    for document in ["README.md", "ARCHITECTURE.md", "docs/async.md"] {
        let text = read(document);
        let words = text.split(|letter: char| letter.is_whitespace() || "`()[]{},;".contains(letter));
        for word in words {
            let path =
                word.rsplit_once(':').filter(|(_, line)| line.parse::<u32>().is_ok()).map_or(word, |(path, _)| path);
            let path = path.trim_end_matches(['.', ':']);
            let is_from_here = ["src/", "executor/", "drivers/", "fs/", "tests/", "docs/", "xtask/", "user/"]
                .iter()
                .any(|top| path.starts_with(top));
            if is_from_here && !path.contains(['*', '…', '→']) && !root().join(path).exists() {
                missing.insert(format!("{document}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn commands_that_documents_show_are_taken_by_the_tool() {
    let mut count = 0;
    for document in ["README.md", "docs/async.md"] {
        let text = read(document);
        let lines =
            blocks(&text).into_iter().flat_map(|block| block.lines).filter(|line| line.contains("cargo run -- "));
        for line in lines {
            let (_, words) = line.split_once("cargo run -- ").expect("looked for");
            // A remark stands behind several blanks.
            let words = words.split_once("   ").map_or(words, |(words, _)| words);
            let words = shell_words(words);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert!(is_taken(&words), "{document}: {line}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    assert!(!is_taken(&["trace", "--txet", "--", "ls"]) && !is_taken(&["bench", "--onyl", "signal"]));
}

fn is_taken(words: &[&str]) -> bool {
    match xtask::cli::program(words) {
        Ok(program) => !program.is_some_and(|program| program.to_string_lossy().starts_with('-')),
        // Help is an "error", too, but none of the user's.
        Err(error) => !error.use_stderr(),
    }
}

/// Words as a shell divides them, as far as the documents use that: blanks, and single quotation marks.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut dead = Vec::new();
    let mut count = 0;
    for document in files(".md") {
        let text = read(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            count += 1;
            let file = target.split('#').next().expect("there is a first");
            let folder = document.parent().expect("a file has a folder");
            if !root().join(folder).join(file).exists() {
                dead.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(count > 3, "{count}");
}

#[test]
fn figures_that_async_md_repeats_are_near_those_of_the_table() {
    let table = read("docs/benchmarks.md");
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    // The first ratio is that of instructions.
    let heading = table.lines().map(cells).find(|cells| cells.iter().any(|cell| cell == "ratio")).expect("a heading");
    let column = heading.iter().position(|cell| cell == "ratio").expect("looked for");
    let measured: BTreeMap<String, f64> = table
        .lines()
        .map(cells)
        .filter_map(|cells| Some((cells.get(1)?.clone(), cells.get(column)?.parse().ok()?)))
        .collect();
    let text = read("docs/async.md");
    let said: Vec<Vec<String>> = text.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    assert!(said.len() > 5, "{said:?}");
    for row in said {
        let (name, ratio) = (row[1].trim_matches('`'), row[3].parse::<f64>().expect("a ratio"));
        let measured = measured.get(name).unwrap_or_else(|| panic!("{name} is a row of the table"));
        assert!((ratio - measured).abs() <= 0.1, "{name}: {ratio} is said, {measured} was measured");
    }
}

/// Where a name in a file's "next:" may be found: beside the file, among its own modules, and from each folder above on.
fn found(file: &Path, name: &str) -> bool {
    let folder = file.parent().expect("a file has a folder");
    let own = folder.join(file.file_stem().expect("a file has a name"));
    let above = folder.ancestors().flat_map(|above| [above.to_owned(), above.join("src")]);
    [own].into_iter().chain(above).any(|base| root().join(normal(&base.join(name))).exists())
}

/// Without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

/// The files and folders that the sentence behind "next:" in a file's head names; `None` if it has no such sentence.
fn next(text: &str) -> Option<Vec<String>> {
    let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let head = head.join("\n");
    let place = head.find("next: ").or_else(|| head.find("Next: "))?;
    let paragraph = head[place..].split("\n\n").next().unwrap_or_default();
    let sentence = paragraph.split("Exercise:").next().unwrap_or_default();
    let words = sentence.split(|letter: char| letter.is_whitespace() || "`,;()*[]".contains(letter));
    let is_file = |word: &&str| {
        let is_path =
            word.contains('/') && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_/.-".contains(letter));
        is_path && !word.ends_with('/') || [".rs", ".md", ".s"].iter().any(|ending| word.ends_with(ending))
    };
    Some(words.map(|word| word.trim_end_matches(['.', ':'])).filter(is_file).map(str::to_owned).collect())
}

#[test]
fn what_a_file_says_to_read_next_exists() {
    let mut dead = Vec::new();
    let mut count = 0;
    for file in files(".rs") {
        for name in next(&read(&file)).unwrap_or_default() {
            count += 1;
            if !found(&file, &name) {
                dead.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(count > 300, "{count}");
}

/// The files of ARCHITECTURE.md's reading path, in its order.
fn reading_path() -> Vec<PathBuf> {
    let text = read("ARCHITECTURE.md");
    let (_, section) = text.split_once("## Reading path").expect("the page has that section");
    let section = section.split("## ").next().expect("there is a first");
    let mut files: Vec<PathBuf> = Vec::new();
    for name in quoted(section).into_iter().filter(|name| !name.contains('*')) {
        // A short name is beside the last file, or in the tree above it.
        let near = files.last().map(|last| {
            let folder = last.parent().expect("it has a folder");
            folder.ancestors().map(|above| above.join(name)).find(|path| root().join(path).exists())
        });
        files.push(near.flatten().unwrap_or_else(|| PathBuf::from(name)));
    }
    files
}

#[test]
fn the_reading_path_names_files_that_exist_and_lead_on() {
    let path = reading_path();
    assert!(path.len() > 20, "{path:?}");
    for file in &path {
        assert!(root().join(file).exists(), "{}", file.display());
        if file.extension().is_some_and(|ending| ending == "rs") {
            let names =
                next(&read(file)).unwrap_or_else(|| panic!("{} does not say what to read next", file.display()));
            assert!(!names.is_empty(), "{} names no file to read next", file.display());
        }
    }
}
