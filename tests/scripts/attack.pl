# Attacks from inside of a container, for images that have only Debian's essential packages.
#
# perl attack.pl MODE [ARGUMENT...]; each line of output is the name of an attempt and what happened.
use strict;
use warnings;
no warnings "portable";
use Errno;
use IO::Socket::UNIX;
use Socket;

my ($mode, @arguments) = @ARGV;

sub say_line { print join(" ", @_), "\n" }

sub pids { return grep { $_ != $$ } map { m{/(\d+)$} } glob "/proc/[0-9]*" }

sub content {
    my ($path, $most) = @_;
    open my $file, "<:raw", $path or return "";
    my $text = "";
    while (length $text < $most) { sysread($file, $text, $most - length $text, length $text) or last }
    return $text;
}

# Looks for texts, given as a file of hex lines, in everything that can be read.
sub search {
    my @texts = map { chomp; pack "H*", $_ } do { open my $file, "<", $arguments[0] or die "$!"; <$file> };
    my $has = sub { my $text = shift; grep { index($text, $_) >= 0 } @texts };
    my %found = (environ => 0, arguments => 0, memory => 0, files => 0);
    my %seen;
    my $walk = sub {
        my @left = @_;
        while (defined(my $path = shift @left)) {
            my @about = lstat $path or next;
            next if $seen{"$about[0]:$about[1]"}++;
            # The CLI is large, and `proc` and `sys` are endless.
            next if $path =~ m{^(/proc|/sys|/usr|/opt/orchestrator/bin|/opt/orchestrator/libexec)(/|$)};
            if (-d _) {
                opendir my $folder, $path or next;
                push @left, map { "$path/$_" } grep { !/^\.\.?$/ } readdir $folder;
            } elsif (-f _ && $has->(content($path, 8 << 20))) {
                $found{files}++;
            }
        }
    };
    my @mounts = map { (split / /)[4] } split /\n/, content("/proc/self/mountinfo", 1 << 20);
    $walk->(@mounts, qw(/run /var /tmp /etc /home /root /srv /mnt /opt /workspace /dev/shm));
    for my $pid (pids()) {
        $found{environ}++ if $has->(content("/proc/$pid/environ", 1 << 20));
        $found{arguments}++ if $has->(content("/proc/$pid/cmdline", 1 << 20));
        $walk->(map { "/proc/$pid/$_/" } qw(root/run root/var root/home cwd)) if -r "/proc/$pid/root/";
        for my $opened (glob "/proc/$pid/fd/*") { $found{files}++ if -f $opened && $has->(content($opened, 8 << 20)) }
        open my $memory, "<:raw", "/proc/$pid/mem" or next;
        my $left = 128 << 20;
        for my $line (split /\n/, content("/proc/$pid/maps", 1 << 22)) {
            my ($from, $to) = $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw/ or next;
            ($from, $to) = (hex $from, hex $to);
            my $size = $to - $from < 16 << 20 ? $to - $from : 16 << 20;
            next if $from > 1 << 62 || ($left -= $size) < 0;
            sysseek $memory, $from, 0 or next;
            my $bytes = "";
            sysread $memory, $bytes, $size or next;
            $found{memory}++ if $has->($bytes);
        }
    }
    say_line($_, $found{$_} ? "yes" : "no") for sort keys %found;
}

# Reads paths directly, by a link, and by the root directories of other processes.
sub paths {
    for my $path (@arguments) {
        symlink $path, "link";
        my @ways = ($path, "link", "/proc/self/root$path", map { "/proc/$_/root$path" } pids());
        my $read = grep { -d $_ ? opendir(my $folder, $_) : open(my $file, "<", $_) } @ways;
        unlink "link";
        say_line($path, $read ? "yes" : "no");
    }
}

sub call {
    my ($name, $number, @given) = @_;
    my $result = syscall($number, @given);
    my ($error) = grep { $!{$_} } sort keys %!;
    say_line($name, $result >= 0 ? "done" : $error // "error");
    return $result;
}

# No attempt changes anything outside of the container if it succeeds.
sub rights {
    my ($none, $tmpfs, $folder, $root) = ("none", "tmpfs", "$ENV{TMPDIR}", "/");
    my $device = "$folder/device";
    call("user-namespace", 272, 0x10000000);
    call("mount-namespace", 272, 0x00020000);
    call("mount", 165, $none, $folder, $tmpfs, 0, 0);
    call("bind-mount", 165, $root, $folder, 0, 4096, 0);
    call("device", 133, $device, 0060666, 0x700);
    call("chroot", 161, $root);
    call("set-user", 105, 0);
    for my $name (qw(mnt pid net user)) {
        my $opened = open my $file, "<", "/proc/1/ns/$name";
        $opened ? call("enter-$name", 308, fileno $file, 0) : say_line("enter-$name", "ENOENT");
    }
    for my $path (
        qw(/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /sys/kernel/uevent_helper /dev/kmsg
        /etc/passwd /opt/orchestrator/bin/supervisor /opt/orchestrator/bin/claude /proc/1/mem /proc/1/environ)
        )
    {
        say_line($path, open(my $file, ">>", $path) ? "done" : "EACCES");
    }
}

sub calls {
    my $zeros = "\0" x 256;
    call("io_uring_setup", 425, 1, $zeros);
    call("keyctl", 250, 0, -3, 1);
    call("bpf", 321, 0, $zeros, 72);
    call("perf_event_open", 298, $zeros, 0, -1, -1, 0);
    call("userfaultfd", 323, 1);
    call("vsock", 41, 40, 1, 0);
}

# Process 1 is the guest. PTRACE_SEIZE stops nothing if it succeeds.
sub trace {
    my $buffer = "\0" x 8;
    my $local = pack "QQ", unpack("Q", pack "p", $buffer), 8;
    my $remote = pack "QQ", 0x400000, 8;
    my $program = content("/proc/1/cmdline", 4096);
    say_line("guest", $program =~ m{/supervisor\0guest\0} ? "found" : "not found");
    call("ptrace", 101, 0x4206, 1, 0, 0);
    call("process_vm_readv", 310, 1, $local, 1, $remote, 1, 0);
    my $process = call("pidfd_open", 434, 1, 0);
    call("pidfd_getfd", 438, $process, 3, 0) if $process >= 0;
}

sub attempt {
    my ($name, $action) = @_;
    $! = 0;
    say_line($name, $action->() ? "reached" : "refused");
}

# Services of the machine: NAME=ADDRESS, where a name in front of `:` says what it is.
sub services {
    for my $pair (@arguments) {
        my ($kind, $name, $address) = $pair =~ /^(\w+):([^=]+)=(.*)$/ or die $pair;
        $address =~ s/^@/\0/;
        if ($kind eq "socket") {
            attempt($name, sub { my $socket; socket($socket, AF_UNIX, SOCK_STREAM, 0) && connect $socket, pack_sockaddr_un($address) });
        } elsif ($kind eq "datagram") {
            attempt($name, sub { my $socket; socket($socket, AF_UNIX, SOCK_DGRAM, 0) && send $socket, "x", 0, pack_sockaddr_un($address) });
        } else {
            attempt("$name-read", sub { sysopen(my $file, $address, 0400 | 04000) });
            attempt("$name-write", sub { sysopen(my $file, $address, 0400 | 04000 | 1) });
        }
    }
}

# Connects to the socket of the own guest: silent, with garbage, and as another guest of the same build.
sub guest {
    my $path = $arguments[0];
    my @held;
    for my $round (1 .. 400) {
        my $socket = IO::Socket::UNIX->new(Peer => $path, Timeout => 5) or next;
        $socket->blocking(0);
        # `e`, not `\n`, so that the length of a frame is never sent as a whole.
        syswrite $socket, $round % 3 == 0 ? "\xff" x 64 : $round % 3 == 1 ? "e" : "";
        push @held, $socket;
    }
    say_line("connected", @held > 0 ? "some" : "none");
    # Other sockets: gateway and relay, without a token. Those of the verification would be seen too.
    for my $other (sort grep { $_ ne $path } glob "/run/orchestrator/guests/*/*") {
        my $socket = IO::Socket::UNIX->new(Peer => $other, Timeout => 5) or next;
        syswrite $socket, "GET /v1/files HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" . "x" x 100;
        my ($name) = $other =~ m{/(\w+/\w+)-};
        my $line = <$socket> // "closed";
        $line =~ s/\s+$//;
        say_line("socket", $name // $other, $line);
    }
    my $taken = `timeout 5 /opt/orchestrator/bin/supervisor guest --connect $path 2>&1`;
    say_line("second-guest", $? == 0 ? "done" : "refused");
}

# Ports of the network that the containers of a run share, whose listeners belong to the supervisor's user.
sub listeners {
    my $seen = 0;
    for my $line (map { split /\n/, content("/proc/net/$_", 1 << 22) } qw(tcp tcp6)) {
        my (undef, undef, $address, undef, $state, undef, undef, undef, $user) = split /\s+/, $line;
        next unless defined $user && $state eq "0A";
        $seen++;
        next unless $user eq $arguments[0];
        my $port = hex((split /:/, $address)[1]);
        attempt("port-$port", sub { my $socket; socket($socket, AF_INET, SOCK_STREAM, 0) && connect $socket, pack_sockaddr_in($port, INADDR_LOOPBACK) });
    }
    say_line("others", $seen ? "seen" : "none");
}

my %modes = (
    search => \&search, paths => \&paths, rights => \&rights, calls => \&calls, trace => \&trace,
    services => \&services, guest => \&guest, listeners => \&listeners,
);
($modes{$mode} // die "no mode $mode")->();
