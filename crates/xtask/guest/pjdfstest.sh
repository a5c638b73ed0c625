# The POSIX suite on the root, which is our share.
mkdir /suite && chmod 777 /suite && cd /suite || exit 1
# It leaves NO_COLOR to the terminal's library: the summary is read by a program.
NO_COLOR=1 pjdfstest --configuration-file /etc/pjdfstest.toml --path /suite
