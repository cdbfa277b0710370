# What `cargo test` prints, in short: the binaries and their results as they come; in the end each test that failed in at most 40
# lines, with the command that repeats it. `cargo` begins that command, `everything` is the file that has it all.

function quoted(name) {
    return name ~ /[^A-Za-z0-9_:.\/-]/ ? "'" name "'" : name
}

# What selects the binary that cargo names in this line.
function selects(line,    name) {
    if (line ~ /^ *Doc-tests /) return "--doc"
    name = line
    sub(/.*\//, "", name)
    sub(/-[0-9a-f]+\)$/, "", name)
    if (line !~ /Running unittests /) return "--test " name
    if (line ~ /\/examples\//) return "--example " name
    return line ~ /lib\.rs / ? "--lib" : "--bin " name
}

# Its last panic and what follows it; without a panic, the end.
function show(n,    from, to, i) {
    printf "\n---- %s\n", test[n]
    for (i = lines[n]; i > 0 && text[n, i] !~ /^thread '.*panicked at/; i--) {}
    from = (i > 0 ? i - 5 : lines[n] - 35)
    if (from < 1) from = 1
    to = (from + 35 < lines[n] ? from + 35 : lines[n])
    for (i = from; i <= to && text[n, i] != "stack backtrace:"; i++) print substr(text[n, i], 1, 400)
    if (to - from + 1 < lines[n]) printf "(of %d lines; all are in %s)\n", lines[n], everything
    printf "repeat with: %s %s -- --exact %s\n", cargo, selection[n], quoted(test[n])
}

/^ *(Running|Doc-tests) / {
    selected = selects($0)
    print
    fflush()
}

/^---- .* stdout ----$/ {
    name = $0
    sub(/^---- /, "", name)
    sub(/ stdout ----$/, "", name)
    test[++failures] = name
    selection[failures] = selected
    lines[failures] = 0
    inside = 1
    next
}

# The list of their names, the end of a binary, and cargo's own words.
/^failures:$/ || /^test result: / || /^error: / { inside = 0 }

/^test result: / {
    passed += $4
    failed += $6
    skipped += $8
    print
    fflush()
}

inside { text[failures, ++lines[failures]] = $0 }

END {
    for (n = 1; n <= failures; n++) show(n)
    printf "\n%d passed, %d failed, %d skipped; what they printed is in %s\n", passed, failed, skipped, everything
}
