# Runs COMMAND and ends it as soon as standard input ends, which is when the process at the other end of that pipe is gone,
# however it went: no server outlives its tests. With `remove` FOLDER goes with it, with `keep` it stays after a success.
#
# usage: sh guard.sh SIGNAL keep|remove FOLDER COMMAND [ARGUMENT]...
signal=$1 after=$2 folder=$3
shift 3

# The kernel hangs up a process group that is orphaned while one of its members is stopped: that must not end the guard.
trap '' HUP

# A background command's standard input is /dev/null: the watcher below reads the pipe as number 3.
exec 3<&0 </dev/null
"$@" >>"$folder/log" 2>&1 3<&- &
command=$!
# CONT: a command that a test has stopped with SIGSTOP must wake up to be ended.
{ read -r _ <&3; kill -s "$signal" "$command"; kill -s CONT "$command"; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-

wait "$command"
status=$?
kill "$watcher" 2>/dev/null
if [ "$status" = 0 ] && [ "$after" = keep ]; then
    exit 0
fi
# The folder goes now: its log's end is handed over first.
tail -n 40 "$folder/log"
# Once more: a child of the command may have been writing still.
rm -rf "$folder" 2>/dev/null || { sleep 1; rm -rf "$folder"; }
exit "$status"
