# The machine of `make figures`: Python 3.11, make, and the versions of requirements.lock.
#   docker build -t cryoetgan . && docker run -v "$PWD/figures:/cryoetgan/figures" cryoetgan
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /cryoetgan
COPY . .
RUN make env
CMD ["make", "figures"]
